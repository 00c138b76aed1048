package dataset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// tree writes files, by slash-separated name, below a new folder.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func link(t *testing.T, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip("symbolic links need a privilege here")
		}
		t.Fatal(err)
	}
}

func names(files []sourceFile) []string {
	list := []string{}
	for _, f := range files {
		list = append(list, f.Name)
	}
	return list
}

func TestListSources(t *testing.T) {
	dir := tree(t, map[string]string{
		"b.txt": "b", "a.txt": "a", "c.go": "package c",
		"sub/d.txt": "d", "sub/deep/e.go": "e", "sub/deep/er/f.go": "f",
		".hidden/g.txt": "g", ".h.txt": "h",
		"empty.txt": "", "large.txt": strings.Repeat("x", 101), "r.xz": "{}",
		"odd[1].txt": "o",
	})
	t.Setenv("MEAP_TEST_TREE", dir)
	t.Setenv("HOME", dir)
	all := []string{"a.txt", "b.txt", "c.go", "odd[1].txt", "sub/d.txt", "sub/deep/e.go", "sub/deep/er/f.go"}
	for _, c := range []struct {
		sources []string
		want    []string
	}{
		{[]string{"/"}, all},
		{[]string{"/*.txt"}, []string{"a.txt", "b.txt", "odd[1].txt"}},
		{[]string{"/**/*.go"}, []string{"c.go", "sub/deep/e.go", "sub/deep/er/f.go"}},
		{[]string{"/**"}, all},
		{[]string{"/**/**/deep/**/*.go"}, []string{"sub/deep/e.go", "sub/deep/er/f.go"}},
		{[]string{"/*/*.txt"}, []string{"sub/d.txt"}},
		{[]string{"/sub/**"}, []string{"d.txt", "deep/e.go", "deep/er/f.go"}},
		{[]string{"/s?b/[a-d].txt"}, []string{"sub/d.txt"}},
		{[]string{"/.h*"}, []string{".h.txt"}},
		{[]string{"/.h*/*"}, []string{".hidden/g.txt"}},
		{[]string{"/odd[1].txt"}, []string{"odd[1].txt"}},
		{[]string{"/b.txt", "/a.txt", "/**/*.txt"}, []string{"b.txt", "a.txt", "odd[1].txt", "sub/d.txt"}}, // each once, where it is first
	} {
		for _, prefix := range []string{dir, "$MEAP_TEST_TREE", "${MEAP_TEST_TREE}", "~"} {
			if prefix == "~" && runtime.GOOS == "windows" {
				continue
			}
			var sources []string
			for _, s := range c.sources {
				sources = append(sources, prefix+s)
			}
			files, _, err := listSources("data.sources", sources, 100, nil)
			if err != nil || !slices.Equal(names(files), c.want) {
				t.Errorf("%v: %v, %v, want %v", sources, names(files), err, c.want)
			}
		}
	}
	_, skipped, err := listSources("data.sources", []string{dir}, 100, nil)
	if err != nil || skipped != (Skipped{Empty: 1, TooLarge: 1, Unsupported: 1}) {
		t.Errorf("skipped %+v, %v", skipped, err)
	}
	for source, word := range map[string]string{
		dir + "/nothing*.txt":  "matches no file",
		dir + "/absent":        "check its spelling",
		dir + "/absent/**/*":   "there is no folder",
		dir + "/empty.*":       "no usable file (1 empty",
		dir + "/empty.txt":     "empty",
		dir + "/large.txt":     "data.max_file_bytes",
		dir + "/r.xz":          "unpack it",
		dir + "/[":             "not a pattern",
		"$MEAP_TEST_NOTHING/a": "MEAP_TEST_NOTHING is not set",
	} {
		_, _, err := listSources("data.sources", []string{dir + "/a.txt", source}, 100, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "data.sources: ") || !strings.Contains(err.Error(), word) ||
			!strings.Contains(err.Error(), filepath.Base(source)) {
			t.Errorf("%s: %v, want %q", source, err, word)
		}
	}
}

func TestSymbolicLinks(t *testing.T) {
	dir := tree(t, map[string]string{"real/a.txt": "a", "real/in/b.txt": "b", "other/c.txt": "c"})
	link(t, filepath.Join(dir, "real"), filepath.Join(dir, "real", "in", "up")) // a cycle
	link(t, filepath.Join(dir, "other"), filepath.Join(dir, "real", "linked"))
	link(t, filepath.Join(dir, "other", "c.txt"), filepath.Join(dir, "real", "z.txt"))
	link(t, filepath.Join(dir, "nowhere"), filepath.Join(dir, "real", "dangling"))
	files, _, err := listSources("data.sources", []string{filepath.Join(dir, "real")}, 100, nil)
	if err != nil || !slices.Equal(names(files), []string{"a.txt", "in/b.txt", "linked/c.txt"}) {
		t.Errorf("%v, %v", names(files), err)
	}
	link(t, filepath.Join(dir, "real"), filepath.Join(dir, "start"))
	files, _, err = listSources("data.sources", []string{filepath.Join(dir, "start", "**", "b.txt")}, 100, nil)
	if err != nil || !slices.Equal(names(files), []string{"in/b.txt"}) {
		t.Errorf("%v, %v", names(files), err)
	}
}

func TestGoroot(t *testing.T) {
	for _, set := range []string{"", "/somewhere"} {
		t.Setenv("GOROOT", set)
		got, err := ExpandPath("$GOROOT/src/**/*.go")
		if set == "" && err != nil {
			t.Skipf("no go command: %v", err)
		}
		if err != nil || !strings.HasSuffix(got, "/src/**/*.go") || !strings.HasPrefix(got, set) || got == "/src/**/*.go" {
			t.Errorf("GOROOT=%q: %q, %v", set, got, err)
		}
	}
	t.Setenv("GOROOT", "")
	t.Setenv("PATH", t.TempDir())
	if _, err := ExpandPath("$GOROOT/src"); err == nil || !strings.Contains(err.Error(), "set GOROOT") {
		t.Errorf("without a go command: %v", err)
	}
}

// An interrupt of the terminal ends the go command too, which is no mistake in the configuration.
func TestGOROOTInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	bin := tree(t, map[string]string{"go": "#!/bin/sh\nkill -INT $$\n"})
	if err := os.Chmod(filepath.Join(bin, "go"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOROOT", "")
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	if _, err := ExpandPath("$GOROOT/src"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

func TestHoldOut(t *testing.T) {
	files := func(n int) []sourceFile {
		var list []sourceFile
		for i := range n {
			list = append(list, sourceFile{Name: strings.Repeat("x", i+1)})
		}
		return list
	}
	train, validation := holdOut(files(2000), 0.1)
	// 200 expected, deviation 13.
	if len(validation) < 135 || len(validation) > 265 || len(train)+len(validation) != 2000 {
		t.Errorf("held out %d of 2000 at 0.1", len(validation))
	}
	// A file goes where it goes, whatever else is there.
	_, fewer := holdOut(files(1000), 0.1)
	if !slices.Equal(names(fewer), names(validation[:len(fewer)])) {
		t.Error("other files moved a file to the other split")
	}
	for _, fraction := range []float64{1e-9, 0.5, 1} {
		for n := 2; n < 5; n++ {
			train, validation := holdOut(files(n), fraction)
			if len(train) == 0 || len(validation) == 0 || len(train)+len(validation) != n {
				t.Errorf("%d files at %v: %d and %d", n, fraction, len(train), len(validation))
			}
		}
	}
	train, validation = holdOut(files(1), 0.1)
	if train[0].Part != head || validation[0].Part != tail {
		t.Errorf("one file: %v and %v", train, validation)
	}
}

// Pictures among a few texts: whatever the names, each split has text.
func TestHoldOutText(t *testing.T) {
	long := strings.Repeat("x", 1<<13-1) + "é and more"
	for _, text := range []map[string]string{{"a.txt": strings.Repeat("one\n", 100)}, {"a.txt": long, "b.md": "b"}, {"a.txt": "a", "b.go": "b", "c.json": "{}"}} {
		for i := range 20 {
			tree := tree(t, text)
			for _, name := range []string{"png", "bin", "txt"} {
				if err := os.WriteFile(filepath.Join(tree, fmt.Sprintf("%d.%s", i, name)), []byte("\x89PNG\x00"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := DefaultConfig()
			c.Sources, c.ValidationFraction, c.CacheDir = []string{tree}, 0.02, t.TempDir()
			set, err := Prepare(context.Background(), c, bytesTok, Options{})
			if err != nil {
				t.Fatalf("%d texts, pictures called %d: %v", len(text), i, err)
			}
			if x := set.Index; x.Train.Skipped.Binary+x.Validation.Skipped.Binary != 3 {
				t.Errorf("%d texts, pictures called %d: of 3 pictures %d and %d are counted", len(text), i, x.Train.Skipped.Binary, x.Validation.Skipped.Binary)
			}
		}
	}
}

func TestPartCutsBetweenLines(t *testing.T) {
	for _, c := range []struct {
		text       string
		fraction   float64
		head, tail string
	}{
		{"one\ntwo\nthree\nfour\n", 0.25, "one\ntwo\nthree\n", "four\n"},
		{"one\ntwo\nthree\nfour\n", 0.5, "one\ntwo\n", "three\nfour\n"},
		{"aaaéééé", 0.5, "aaaé", "ééé"}, // 11 bytes, the cut at 6 would split a character
		{"abcd", 0.25, "abc", "d"},
		{"ab", 0.1, "ab", ""},
	} {
		text := []byte(c.text)
		if h, tl := string(head.of(text, c.fraction)), string(tail.of(text, c.fraction)); h != c.head || tl != c.tail {
			t.Errorf("%q at %v: %q and %q", c.text, c.fraction, h, tl)
		}
		if string(whole.of(text, c.fraction)) != c.text {
			t.Errorf("%q is not whole", c.text)
		}
	}
}

func TestValidationSourcesAreHeldOut(t *testing.T) {
	dir := tree(t, map[string]string{"a.txt": "a", "b.txt": "b", "sub/c.txt": "c"})
	c := DefaultConfig()
	c.Sources, c.Validation = []string{dir}, []string{filepath.Join(dir, "sub")}
	l, err := listSplits(c, nil)
	if err != nil || !slices.Equal(names(l.Train), []string{"a.txt", "b.txt"}) || !slices.Equal(names(l.Validation), []string{"c.txt"}) {
		t.Errorf("%v and %v, %v", names(l.Train), names(l.Validation), err)
	}
	c.Validation = []string{dir}
	if _, err := listSplits(c, nil); err == nil || !strings.Contains(err.Error(), "data.validation") {
		t.Errorf("everything held out: %v", err)
	}
	c.Validation, c.ValidationFraction = nil, 0
	if l, err := listSplits(c, nil); err != nil || len(l.Train) != 3 || len(l.Validation) != 0 {
		t.Errorf("nothing held out: %v, %v", l, err)
	}
	c.Sources = nil
	if _, err := listSplits(c, nil); err == nil || !strings.HasPrefix(err.Error(), "data.sources = []: ") {
		t.Errorf("no sources: %v", err)
	}
}

func TestValidate(t *testing.T) {
	if errs := DefaultConfig().Validate(); len(errs) != 0 {
		t.Errorf("defaults: %v", errs)
	}
	for key, change := range map[string]func(*Config){
		"data.validation_fraction = 0.6": func(c *Config) { c.ValidationFraction = 0.6 },
		"data.validation_fraction = -1":  func(c *Config) { c.ValidationFraction = -1 },
		`data.cache_dir = ""`:            func(c *Config) { c.CacheDir = "" },
		`data.text_field = ""`:           func(c *Config) { c.TextField = "" },
		"data.max_file_bytes = 0":        func(c *Config) { c.MaxFileBytes = 0 },
		`data.sources[1] = ""`:           func(c *Config) { c.Sources = []string{"a", ""} },
		`data.validation[0] = ""`:        func(c *Config) { c.Validation = []string{""} },
	} {
		c := DefaultConfig()
		change(&c)
		errs := c.Validate()
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), key+": ") {
			t.Errorf("%v, want one error that begins with %s", errs, key)
		}
	}
}
