package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// sourceFile is one file that a source stands for.
type sourceFile struct {
	Name    string // slash-separated path below the source's folder; decides order, format and split
	Path    string // real path, without symbolic links
	Size    int64  // bytes
	Time    int64  // modification, nanoseconds since 1970
	Content string // of standard input, which has no name: its SHA-256
	Named   bool   // the source names this very file, so leaving it out is an error
	Part    part   // what of the file belongs to the split

	spool string // where standard input was copied to
}

func (f sourceFile) isStdin() bool { return f.spool != "" }

// location returns the path to open.
func (f sourceFile) location() string {
	if f.isStdin() {
		return f.spool
	}
	return f.Path
}

// Skipped counts the files that a folder or pattern found and that hold no
// usable text.
type Skipped struct {
	Empty       int64 `json:"empty"`       // no bytes
	Binary      int64 `json:"binary"`      // a NUL byte, or not UTF-8
	TooLarge    int64 `json:"too_large"`   // text above data.max_file_bytes, unpacked
	Unsupported int64 `json:"unsupported"` // a container that is not unpacked
	// Records counts records without text, null or empty, in files that hold others. Every other field counts files.
	Records int64 `json:"records"`
}

func (s Skipped) files() int64 { return s.Empty + s.Binary + s.TooLarge + s.Unsupported }

func (s Skipped) String() string {
	text := fmt.Sprintf("%d empty, %d binary, %d above data.max_file_bytes, %d of an unsupported format", s.Empty, s.Binary, s.TooLarge, s.Unsupported)
	if s.Records > 0 {
		text += fmt.Sprintf(", %d records without text", s.Records)
	}
	return text
}

// Add adds another count.
func (s *Skipped) Add(t Skipped) {
	s.Empty += t.Empty
	s.Binary += t.Binary
	s.TooLarge += t.TooLarge
	s.Unsupported += t.Unsupported
	s.Records += t.Records
}

// isStreamed reports whether a file with this name may hold records or tokens, or is larger when unpacked, so that its size says
// nothing about the memory that reading it takes.
func isStreamed(name string) bool {
	ext, how := splitName(name)
	return how != uncompressed || slices.Contains([]string{".jsonl", ".ndjson", ".json", ".parquet", ".bin", ""}, ext)
}

// listSources returns the files of sources, each once: source by source, and
// by name within a source. key is the configuration key that errors name, stdin what "-" stands for.
func listSources(key string, sources []string, maxBytes int64, stdin *sourceFile) ([]sourceFile, Skipped, error) {
	var files []sourceFile
	var skipped Skipped
	seen := make(map[string]bool)
	for _, source := range sources {
		found, err := expandSource(source, stdin)
		if err != nil {
			return nil, skipped, sourceError(key, source, err)
		}
		var here Skipped
		usable := 0
		for _, f := range found {
			reason := unsupported(f.Name)
			switch {
			case reason != "":
				here.Unsupported++
			case isOwnIndex(f):
				continue
			case f.Size == 0:
				reason = "the file is empty; remove it from the sources"
				here.Empty++
			case f.Size > maxBytes && !isStreamed(f.Name):
				reason = fmt.Sprintf("the file has %d bytes, more than data.max_file_bytes = %d; raise that or split the file", f.Size, maxBytes)
				here.TooLarge++
			}
			if reason != "" {
				if f.Named {
					return nil, skipped, configErrorf("%s: %s: %s", key, f.Path, reason)
				}
				continue
			}
			usable++
			if !seen[f.Path] {
				seen[f.Path] = true
				files = append(files, f)
			}
		}
		if usable == 0 {
			if here.files() > 0 {
				return nil, skipped, configErrorf("%s: %q matches no usable file (%v); name files that hold text", key, source, here)
			}
			return nil, skipped, configErrorf("%s: %q matches no file; check its spelling, or remove it", key, source)
		}
		skipped.Add(here)
	}
	return files, skipped, nil
}

// ConfigError is a mistake in the section data that shows only when its files are looked for: nothing is there, or nothing that can be
// used.
type ConfigError struct{ Problem error }

func (e *ConfigError) Error() string { return e.Problem.Error() }

// Unwrap returns the problem.
func (e *ConfigError) Unwrap() error { return e.Problem }

func configErrorf(format string, args ...any) error { return &ConfigError{fmt.Errorf(format, args...)} }

// sourceError is that of a source that cannot be expanded. A file or folder that is there and cannot be read is no mistake in the
// configuration.
func sourceError(key, source string, err error) error {
	problem := fmt.Errorf("%s: %q: %w", key, source, err)
	if path := (*fs.PathError)(nil); errors.As(err, &path) && !errors.Is(err, fs.ErrNotExist) {
		return problem
	}
	return &ConfigError{problem}
}

// isOwnIndex reports whether a file that a folder or pattern found is the index of prepared data, whose shards are sources then.
func isOwnIndex(f sourceFile) bool {
	if f.Named || filepath.Base(f.Path) != IndexFile {
		return false
	}
	_, err := ReadIndex(filepath.Dir(f.Path))
	return err == nil
}

// expandSource returns the regular files that one source stands for, sorted by
// name.
func expandSource(source string, stdin *sourceFile) ([]sourceFile, error) {
	if source == stdinSource {
		if stdin == nil {
			return nil, errors.New("standard input cannot be read here; name a file")
		}
		return []sourceFile{*stdin}, nil
	}
	expanded, err := ExpandPath(source)
	if err != nil {
		return nil, err
	}
	// A path that exists is meant literally, whatever characters it has.
	info, err := os.Stat(expanded)
	if err == nil && !info.IsDir() {
		if !info.Mode().IsRegular() {
			return nil, errors.New("it is neither a file nor a folder")
		}
		real, err := realPath(expanded)
		if err != nil {
			return nil, err
		}
		return []sourceFile{{
			Name: filepath.Base(expanded), Path: real,
			Size: info.Size(), Time: info.ModTime().UnixNano(), Named: true,
		}}, nil
	}
	folder, pattern := expanded, []string{"**", "*"}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !hasMeta(expanded) {
			return nil, err
		}
		if !hasMeta(expanded) {
			return nil, fmt.Errorf("there is no file, folder or pattern %s; check its spelling", expanded)
		}
		if folder, pattern, err = splitPattern(expanded); err != nil {
			return nil, err
		}
	}
	files, err := findFiles(folder, pattern)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(files, func(a, b sourceFile) int { return cmp.Compare(a.Name, b.Name) })
	return files, nil
}

// realPath returns path as an absolute path without symbolic links.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// ExpandPath replaces a leading ~, $NAME and ${NAME} in a source; $GOROOT is found even where the variable is not set.
func ExpandPath(source string) (string, error) {
	if source == "~" || strings.HasPrefix(source, "~/") || strings.HasPrefix(source, `~\`) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the home folder: %w", err)
		}
		source = home + source[1:]
	}
	var failed error
	expanded := os.Expand(source, func(name string) string {
		value := os.Getenv(name)
		if value == "" && name == "GOROOT" {
			var err error
			if value, err = goroot(); err != nil && failed == nil {
				failed = err
			}
		} else if value == "" && failed == nil {
			failed = fmt.Errorf("the environment variable %s is not set; set it or write the path", name)
		}
		return value
	})
	return expanded, failed
}

// goroot asks the go command where its distribution is. What the program was
// built with (runtime.GOROOT) need not exist on this machine.
func goroot() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) && !ended.Exited() {
		return "", fmt.Errorf("`go env GOROOT` was interrupted: %w", context.Canceled) // and so is this process: a terminal asks both
	}
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		return "", fmt.Errorf("$GOROOT is not set and `go env GOROOT` gave none (%v); set GOROOT or name other text", err)
	}
	return root, nil
}
