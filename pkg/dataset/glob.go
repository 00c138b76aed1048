package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// hasMeta reports whether s holds a character that is special in a pattern.
func hasMeta(s string) bool { return strings.ContainsAny(s, "*?[") }

// splitPattern cuts a pattern into the folder before its first special
// character and the names, one per level, that follow.
func splitPattern(pattern string) (folder string, names []string, err error) {
	all := strings.Split(filepath.ToSlash(pattern), "/")
	first := slices.IndexFunc(all, hasMeta)
	folder = "."
	if first > 0 {
		folder = strings.Join(all[:first], "/") + "/" // the slash keeps "/" and "C:/" absolute
	}
	for _, name := range all[first:] {
		if name == "" {
			continue
		}
		if _, err := path.Match(name, ""); err != nil {
			return "", nil, fmt.Errorf("%q is not a pattern: %w", name, err)
		}
		names = append(names, name)
	}
	if names[len(names)-1] == "**" {
		names = append(names, "*")
	}
	if len(names) > 64 {
		return "", nil, errors.New("the pattern has more than 64 levels")
	}
	return filepath.FromSlash(folder), names, nil
}

// findFiles returns the regular files below folder whose path matches names:
// one name per level, ** standing for any number of levels. Symbolic links are
// followed, except those to a folder that contains them. A name that begins
// with a dot is found only by a name that does.
func findFiles(folder string, names []string) ([]sourceFile, error) {
	real, err := realPath(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no folder %s; check its spelling", filepath.Clean(folder))
	}
	if err != nil {
		return nil, err
	}
	w := walker{names: names}
	if err := w.walk(real, "", w.reach(1), nil); err != nil {
		return nil, err
	}
	return w.files, nil
}

// walker matches names level by level, as a set of the positions in names that
// the path so far may have reached; bit i stands for names[i].
type walker struct {
	names []string
	files []sourceFile
}

// reach adds the positions that are reached because ** matches no level.
func (w *walker) reach(at uint64) uint64 {
	for i, name := range w.names {
		if name == "**" && at&(1<<i) != 0 {
			at |= 1 << (i + 1)
		}
	}
	return at
}

// walk visits the folder with the real path real, which is called name and has
// reached the positions at; above are the real paths of the folders on the way.
func (w *walker) walk(real, name string, at uint64, above []string) error {
	entries, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	above = append(above, real)
	for _, entry := range entries {
		var below uint64
		matched := false
		hidden := strings.HasPrefix(entry.Name(), ".")
		for i, pattern := range w.names {
			if at&(1<<i) == 0 || hidden && !strings.HasPrefix(pattern, ".") {
				continue
			}
			if pattern == "**" {
				below |= 1 << i
			} else if ok, _ := path.Match(pattern, entry.Name()); ok {
				if i == len(w.names)-1 {
					matched = true
				} else {
					below |= 1 << (i + 1)
				}
			}
		}
		if below == 0 && !matched {
			continue
		}
		child, childName := filepath.Join(real, entry.Name()), path.Join(name, entry.Name())
		if entry.Type()&fs.ModeSymlink != 0 {
			child, err = filepath.EvalSymlinks(child)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the link leads nowhere
			}
			if err != nil {
				return err
			}
		}
		info, err := os.Stat(child)
		if err != nil {
			return err
		}
		switch {
		case info.IsDir() && below != 0 && !slices.Contains(above, child):
			if err := w.walk(child, childName, w.reach(below), above); err != nil {
				return err
			}
		case info.Mode().IsRegular() && matched:
			w.files = append(w.files, sourceFile{Name: childName, Path: child, Size: info.Size(), Time: info.ModTime().UnixNano()})
		}
	}
	return nil
}
