package dataset

import (
	"slices"
	"strings"
)

// HeldOutFiles returns the real paths of the plain text files that are held out of training as a whole, in the order in which they are
// packed.
func HeldOutFiles(c Config) ([]string, error) {
	list, err := listSplits(c, nil)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, f := range list.Validation {
		if f.Part == whole && !isStreamed(f.Name) {
			paths = append(paths, f.Path)
		}
	}
	return paths, nil
}

// ListFiles returns the real paths of the files that sources (files, folders and patterns) stand for, each once: source by source,
// and by name within a source. Where a folder or a pattern finds them, only files whose names end in one of the endings count. key
// is the configuration key that errors name.
func ListFiles(key string, sources, endings []string) ([]string, error) {
	var paths []string
	for _, source := range sources {
		found, err := expandSource(source, nil)
		if err != nil {
			return nil, sourceError(key, source, err)
		}
		usable := 0
		for _, f := range found {
			ends := func(ending string) bool { return strings.HasSuffix(strings.ToLower(f.Name), ending) }
			if !f.Named && !slices.ContainsFunc(endings, ends) {
				continue
			}
			usable++
			if !slices.Contains(paths, f.Path) {
				paths = append(paths, f.Path)
			}
		}
		if usable == 0 {
			return nil, configErrorf("%s: %q matches no file that ends in %s; check its spelling, or remove it", key, source, strings.Join(endings, ", "))
		}
	}
	return paths, nil
}
