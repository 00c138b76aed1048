package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meap/pkg/tokenizer"
)

var bytesTok = tokenizer.ByteLevel{}

// prepared prepares the given files, all of which are training text but those
// in the folder "validation".
func prepared(t testing.TB, files map[string]string) *Set {
	t.Helper()
	dir := tree(t, files)
	c := DefaultConfig()
	c.Sources, c.ValidationFraction, c.CacheDir = []string{dir}, 0, t.TempDir()
	if _, err := os.Stat(filepath.Join(dir, "validation")); err == nil {
		c.Validation = []string{filepath.Join(dir, "validation")}
	}
	set, err := Prepare(context.Background(), c, bytesTok, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func stream(t testing.TB, set *Set, split string) *Stream {
	t.Helper()
	s, err := OpenStream(set.Dir, split)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func everything(t testing.TB, s *Stream) []int32 {
	t.Helper()
	ids := make([]int32, s.Len())
	if err := s.Read(0, ids); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestPrepare(t *testing.T) {
	set := prepared(t, map[string]string{
		"b.txt": "be", "a/x.txt": "ä", "validation/v.txt": "vv\n",
		"nul.bin": "a\x00b", "latin1.txt": "\xe4", "empty.txt": "",
	})
	if !set.Built {
		t.Error("not built")
	}
	train := stream(t, set, Train)
	if got := everything(t, train); !slices.Equal(got, []int32{256, 0xc3, 0xa4, 257, 256, 'b', 'e', 257}) {
		t.Errorf("training tokens %v", got)
	}
	validation := stream(t, set, Validation)
	if got := everything(t, validation); !slices.Equal(got, []int32{256, 'v', 'v', '\n', 257}) {
		t.Errorf("validation tokens %v", got)
	}
	info := *train.Info
	info.Shards = nil
	want := SplitInfo{Tokens: 8, Bytes: 4, Documents: 2, Files: 2, Skipped: Skipped{Empty: 1, Binary: 2}}
	if fmt.Sprint(info) != fmt.Sprint(want) || info.Labels(256) != 6 {
		t.Errorf("%+v, want %+v", info, want)
	}
	if got := BitsPerByte(8*0.6931471805599453, info.Bytes); got != 2 {
		t.Errorf("8 bits on 4 bytes are %v bits per byte", got)
	}
	if err := train.Verify(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestPrepareUsesDataAgain(t *testing.T) {
	dir := tree(t, map[string]string{"a.txt": "one\n", "b.txt": "two\n"})
	c := DefaultConfig()
	c.Sources, c.CacheDir = []string{dir}, filepath.Join(t.TempDir(), "new", "cache")
	prepare := func() *Set {
		set, err := Prepare(context.Background(), c, bytesTok, Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	first := prepare()
	if second := prepare(); !first.Built || second.Built || second.Dir != first.Dir {
		t.Errorf("first %+v, second %+v", first, second)
	}
	// A touched file is read again and turns out to be the same data.
	if err := os.Chtimes(filepath.Join(dir, "a.txt"), time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	touched := prepare()
	if !touched.Built || touched.Index.Fingerprint() != first.Index.Fingerprint() {
		t.Errorf("touched: built %v, fingerprints %s and %s", touched.Built, touched.Index.Fingerprint(), first.Index.Fingerprint())
	}
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("ONE\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed := prepare()
	if !changed.Built || changed.Index.Fingerprint() == first.Index.Fingerprint() {
		t.Errorf("changed: built %v", changed.Built)
	}
}

func TestWorkersChangeNothing(t *testing.T) {
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("%c/%d.txt", 'a'+i%7, i)] = strings.Repeat(fmt.Sprint("text ", i), i*37%1000+1)
	}
	dir := tree(t, files)
	var want *Index
	for _, workers := range []int{1, 2, 3, 8, 0} {
		c := DefaultConfig()
		c.Sources, c.CacheDir, c.ValidationFraction = []string{dir}, t.TempDir(), 0.2
		last := Progress{}
		set, err := Prepare(context.Background(), c, bytesTok, Options{Workers: workers, Progress: func(p Progress) {
			if p.Files != last.Files+1 || p.Tokens <= last.Tokens {
				t.Errorf("progress went from %+v to %+v", last, p)
			}
			last = p
		}})
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = set.Index
		}
		if fmt.Sprintf("%+v %+v", set.Index.Train, *set.Index.Validation) != fmt.Sprintf("%+v %+v", want.Train, *want.Validation) {
			t.Errorf("%d workers: another index", workers)
		}
		if last.Files != 200 || last.TotalFiles != 200 || last.Bytes != last.TotalBytes || last.Tokens != set.Index.Train.Tokens+set.Index.Validation.Tokens {
			t.Errorf("%d workers: progress ended at %+v", workers, last)
		}
	}
}

// leftovers returns what a cache folder holds besides the lock.
func leftovers(t *testing.T, cache string) []string {
	t.Helper()
	entries, err := os.ReadDir(cache)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if e.Name() != ".lock" && e.Name() != piecesDir {
			list = append(list, e.Name())
		}
	}
	return list
}

func TestFailuresLeaveNothingBehind(t *testing.T) {
	dir := tree(t, map[string]string{
		"binary.txt": "a\x00", "small.txt": "x", "binaries/a.txt": "\x00", "binaries/b.txt": "\xff",
		"good/a.txt": "a", "good/b.txt": "b", "good/c.txt": "c",
	})
	for _, c := range []struct{ source, word string }{
		{"binary.txt", "binary.txt: the file is not UTF-8 text"},
		{"binaries", "train split holds no text: 1 files, of which 0 empty, 1 binary"},
		{"small.txt", "validation split holds no text"},
	} {
		cfg := DefaultConfig()
		cfg.Sources, cfg.CacheDir = []string{filepath.Join(dir, c.source)}, t.TempDir()
		_, err := Prepare(context.Background(), cfg, bytesTok, Options{})
		if err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v, want %q", c.source, err, c.word)
		}
		if left := leftovers(t, cfg.CacheDir); len(left) != 0 {
			t.Errorf("%s: left %v", c.source, left)
		}
	}

	cfg := DefaultConfig()
	cfg.Sources, cfg.CacheDir = []string{filepath.Join(dir, "good")}, t.TempDir()
	for stop := 1; stop <= 3; stop++ {
		ctx, cancel := context.WithCancel(context.Background())
		_, err := Prepare(ctx, cfg, bytesTok, Options{Workers: 2, Progress: func(p Progress) {
			if p.Files == stop {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted after file %d: %v", stop, err)
		}
		if left := leftovers(t, cfg.CacheDir); len(left) != 0 {
			t.Errorf("interrupted after file %d: left %v", stop, left)
		}
	}

	// What a killed process left is removed, and only that.
	for _, name := range []string{tmpPrefix + "123", "0123456789abcdef"} {
		if err := os.MkdirAll(filepath.Join(cfg.CacheDir, name, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	set, err := Prepare(context.Background(), cfg, bytesTok, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0123456789abcdef", filepath.Base(set.Dir)}
	slices.Sort(want)
	if left := leftovers(t, cfg.CacheDir); !slices.Equal(left, want) {
		t.Errorf("cache holds %v, want %v", left, want)
	}
}

func TestCacheDirThatIsNoFolder(t *testing.T) {
	dir := tree(t, map[string]string{"a.txt": "some text\nand more\n", "file": "x"})
	c := DefaultConfig()
	c.Sources, c.CacheDir = []string{filepath.Join(dir, "a.txt")}, filepath.Join(dir, "file", "cache")
	if _, err := Prepare(context.Background(), c, bytesTok, Options{}); err == nil || !strings.Contains(err.Error(), c.CacheDir[:len(c.CacheDir)-6]) {
		t.Errorf("%v", err)
	}
}

func TestTwoProcessesPrepareOnce(t *testing.T) {
	dir := tree(t, map[string]string{"a.txt": "one\ntwo\n", "b.txt": "three\n"})
	c := DefaultConfig()
	c.Sources, c.CacheDir = []string{dir}, t.TempDir()
	type result struct {
		set *Set
		err error
	}
	done := make(chan result)
	for range 4 {
		go func() {
			set, err := Prepare(context.Background(), c, bytesTok, Options{})
			done <- result{set, err}
		}()
	}
	built := 0
	for range 4 {
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		if r.set.Built {
			built++
		}
	}
	if built != 1 {
		t.Errorf("built %d times", built)
	}
}

// Damage to prepared data is an error that names the file and what to do.
func TestDamagedData(t *testing.T) {
	for _, c := range []struct {
		name, file string
		damage     func(path string) error
		verify     bool
		word       string
	}{
		{"truncated", "train_0000000000.bin", func(p string) error { return os.Truncate(p, 100) }, false, "truncated"},
		{"empty", "train_0000000000.bin", func(p string) error { return os.Truncate(p, 0) }, false, "empty"},
		{"absent", "validation_0000000000.bin", os.Remove, false, "no such file"},
		{"foreign", "train_0000000000.bin", func(p string) error { return os.WriteFile(p, make([]byte, 4000), 0o644) }, false, "no LITPKDS file"},
		{"other", "train_0000000000.bin", func(p string) error { return os.WriteFile(p, goodShard(), 0o644) }, false, "do not belong together"},
		{"flipped", "train_0000000000.bin", func(p string) error {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			data[headerSize] ^= 1
			return os.WriteFile(p, data, 0o644)
		}, true, "checksum"},
		{"index", IndexFile, func(p string) error { return os.Truncate(p, 10) }, false, "JSON"},
		{"no index", IndexFile, os.Remove, false, "no such file"},
	} {
		dir := tree(t, map[string]string{"a.txt": strings.Repeat("one\n", 100), "b.txt": strings.Repeat("two\n", 100)})
		cfg := DefaultConfig()
		cfg.Sources, cfg.CacheDir = []string{dir}, t.TempDir()
		set, err := Prepare(context.Background(), cfg, bytesTok, Options{})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(set.Dir, c.file)
		if err := c.damage(path); err != nil {
			t.Fatal(err)
		}
		_, err = Prepare(context.Background(), cfg, bytesTok, Options{Verify: c.verify})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), "prepare") {
			t.Errorf("%s: %v, want %q and %s", c.name, err, c.word, path)
		}
	}
}

// separated is a tokenizer with other separators.
type separated struct {
	tokenizer.ByteLevel
	bos, eos int32
}

func (s separated) BOS() int32          { return s.bos }
func (s separated) EOS() int32          { return s.eos }
func (s separated) Fingerprint() string { return fmt.Sprint(s.bos, s.eos) }

// Texts end with EOS, and begin with BOS where that is another token (not as
// with GPT-2) that there is (not as with Qwen). Where nothing ends a text,
// nothing is packed.
func TestPrepareWithOtherSeparators(t *testing.T) {
	dir := tree(t, map[string]string{"a.txt": "a", "b.txt": "bc"})
	for _, c := range []struct {
		tok  separated
		want []int32
	}{
		{separated{bos: 257, eos: 257}, []int32{'a', 257, 'b', 'c', 257}},
		{separated{bos: -1, eos: 257}, []int32{'a', 257, 'b', 'c', 257}},
		{separated{bos: 256, eos: 257}, []int32{256, 'a', 257, 256, 'b', 'c', 257}},
	} {
		config := DefaultConfig()
		config.Sources, config.ValidationFraction, config.CacheDir = []string{dir}, 0, t.TempDir()
		set, err := Prepare(context.Background(), config, c.tok, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := stream(t, set, Train)
		if got := everything(t, s); !slices.Equal(got, c.want) || s.Info.Documents != 2 {
			t.Errorf("BOS %d, EOS %d: %v (%d documents), want %v", c.tok.bos, c.tok.eos, got, s.Info.Documents, c.want)
		}
	}
	config := DefaultConfig()
	config.Sources, config.ValidationFraction, config.CacheDir = []string{dir}, 0, filepath.Join(t.TempDir(), "cache")
	_, err := Prepare(context.Background(), config, separated{bos: 256, eos: -1}, Options{})
	if err == nil || !strings.Contains(err.Error(), "eos_token") || !strings.Contains(err.Error(), "add-mask --eos") {
		t.Error(err)
	}
	if _, err := os.Stat(config.CacheDir); !errors.Is(err, os.ErrNotExist) {
		t.Error("something was written", err)
	}
}

// Standard input that nobody ends does not keep an interrupted command waiting.
func TestInterruptedWhileReadingStandardInput(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(context.Background())
	config := DefaultConfig()
	config.Sources, config.CacheDir = []string{"-"}, t.TempDir()
	failed := make(chan error)
	go func() {
		_, err := Prepare(ctx, config, bytesTok, Options{Stdin: r})
		failed <- err
	}()
	if _, err := w.Write([]byte("some text")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	left, err := os.ReadDir(config.CacheDir)
	if err != nil || len(left) != 0 {
		t.Errorf("%v is left in the cache, %v", left, err)
	}
}
