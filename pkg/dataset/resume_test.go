package dataset

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// mixedSources writes files of every format, most of them large enough for a piece of their own, and returns their folder and their
// number.
func mixedSources(t *testing.T) (string, int) {
	t.Helper()
	type row struct {
		Text string `parquet:"text"`
	}
	r := rand.New(rand.NewPCG(3, 4))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(r.IntN(26))
		}
		return string(b)
	}
	files := map[string]string{}
	for i := range 2 {
		var lines strings.Builder
		var rows []row
		for range 40 {
			s := text(30000)
			fmt.Fprintf(&lines, "{\"text\":%q}\n", s)
			rows = append(rows, row{s})
		}
		files[fmt.Sprintf("b%d.jsonl", i)] = lines.String()
		files[fmt.Sprintf("c%d.jsonl.gz", i)] = gzipOf(t, lines.String())
		files[fmt.Sprintf("d%d.parquet", i)] = string(writeParquet(t, rows, parquet.Compression(&parquet.Snappy)))
	}
	for i := range 50 {
		files[fmt.Sprintf("a%02d.txt", i)] = text(20 + i)
	}
	files["z.txt"] = text(1 << 20)
	return tree(t, files), len(files)
}

// sameBytes compares the files of two prepared folders, the fingerprint of the sources aside.
func sameBytes(t *testing.T, a, b *Set) {
	t.Helper()
	if a.Index.Fingerprint() != b.Index.Fingerprint() || fmt.Sprintf("%+v", a.Index.Train) != fmt.Sprintf("%+v", b.Index.Train) {
		t.Errorf("%+v\nis not\n%+v", a.Index.Train, b.Index.Train)
	}
	for _, split := range []string{Train, Validation} {
		s, err := OpenStream(a.Dir, split)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Verify(context.Background()), s.Close()); err != nil { // checksums are of the whole files
			t.Error(err)
		}
	}
}

func TestWorkersChangeNothingOfAnyFormat(t *testing.T) {
	dir, files := mixedSources(t)
	var first *Set
	for _, workers := range []int{1, 2, 5} {
		c := DefaultConfig()
		c.Sources, c.CacheDir, c.ValidationFraction = []string{dir}, t.TempDir(), 0.1
		last := Progress{}
		set, err := Prepare(context.Background(), c, bytesTok, Options{Workers: workers, Progress: func(p Progress) {
			if p.Files < last.Files || p.Bytes < last.Bytes || p.Tokens < last.Tokens || p == last {
				t.Errorf("progress went from %+v to %+v", last, p)
			}
			last = p
		}})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = set
		}
		sameBytes(t, set, first)
		if last.Files != files || last.Bytes != last.TotalBytes || set.Reused != 0 {
			t.Errorf("%d workers: progress ended at %+v, %d files reused", workers, last, set.Reused)
		}
	}
}

// Whenever a preparation is interrupted, the next one does no finished file again and comes to the same bytes.
func TestInterruptedPreparationIsTakenUpAgain(t *testing.T) {
	dir, files := mixedSources(t)
	c := DefaultConfig()
	c.Sources, c.CacheDir = []string{dir}, t.TempDir()
	want, err := Prepare(context.Background(), c, bytesTok, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.CacheDir = t.TempDir()
	done, rounds := 0, 0
	for {
		ctx, cancel := context.WithCancel(context.Background())
		var last Progress
		set, err := Prepare(ctx, c, bytesTok, Options{Workers: 2, Progress: func(p Progress) {
			// The small files, which share a piece, are done together.
			if last = p; p.Files > max(50, p.Reused+1) && p.Files < p.TotalFiles {
				cancel()
			}
		}})
		cancel()
		if last.Reused < done {
			t.Fatalf("%d files were done and %d were reused", done, last.Reused)
		}
		if err == nil {
			sameBytes(t, set, want)
			if set.Reused != last.Reused || set.Reused == 0 || !set.Built || last.Files != files {
				t.Errorf("%+v, ended at %+v", set, last)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		done = last.Reused
		if rounds++; rounds > files {
			t.Fatal("it does not get on")
		}
	}
	if rounds < 3 {
		t.Errorf("interrupted only %d times", rounds)
	}
	if _, err := os.Stat(filepath.Join(c.CacheDir, piecesDir)); !errors.Is(err, os.ErrNotExist) || len(leftovers(t, c.CacheDir)) != 1 {
		t.Errorf("left pieces (%v) or other than the set: %v", err, leftovers(t, c.CacheDir))
	}
}

// A file that cannot be read costs only itself: repaired, or with other files beside it, the rest is not done again.
func TestBrokenFileKeepsTheOthers(t *testing.T) {
	big := strings.Repeat(`{"text":"`+strings.Repeat("x", 999)+"\"}\n", 1200)
	dir := tree(t, map[string]string{"a.jsonl": big, "b.jsonl": big, "c.jsonl": big + "{\n", "d.jsonl": big})
	c := DefaultConfig()
	c.Sources, c.CacheDir, c.ValidationFraction = []string{dir}, t.TempDir(), 0
	_, err := Prepare(context.Background(), c, bytesTok, Options{})
	if broken := filepath.Join(dir, "c.jsonl") + ":1201: "; err == nil || !strings.Contains(err.Error(), broken) || !strings.Contains(err.Error(), "repair the line or remove it") {
		t.Fatalf("%v, want %s", err, broken)
	}
	pieces, err := filepath.Glob(filepath.Join(c.CacheDir, piecesDir, "*"))
	if err != nil || len(pieces) != 2 {
		t.Fatalf("%v, %v", pieces, err)
	}
	for path, text := range map[string]string{"c.jsonl": big, "0.jsonl": big} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// One piece loses a bit, another is cut: only what is whole is used.
	data, err := os.ReadFile(pieces[0])
	if err != nil {
		t.Fatal(err)
	}
	data[100] ^= 1
	if err := os.WriteFile(pieces[0], data, 0o644); err != nil {
		t.Fatal(err)
	}
	set, err := Prepare(context.Background(), c, bytesTok, Options{})
	if err != nil || set.Reused != 1 || set.Index.Train.Files != 5 || set.Index.Train.Documents != 5*1200 {
		t.Errorf("%+v, %v", set, err)
	}
}

func TestPieceIsWholeOrNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p"+pieceExt)
	w, err := newPieceWriter(path, dtypeUint16)
	if err != nil {
		t.Fatal(err)
	}
	w.Bytes, w.Documents, w.Files, w.Skipped = 5, 4, 3, Skipped{Binary: 2}
	if err := errors.Join(w.add([]int32{1, 2}), w.add([]int32{300}), w.commit()); err != nil {
		t.Fatal(err)
	}
	p, err := openPiece(path)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]int32, p.Tokens)
	decodeTokens(dtypeUint16, p.data, 0, ids)
	if p.counts != w.counts || p.Tokens != 3 || !slices.Equal(ids, []int32{1, 2, 300}) {
		t.Errorf("%+v of %v, want %+v", p.counts, ids, w.counts)
	}
	data := slices.Clone([]byte(p.mapped))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if new(piece).parse(data[:n]) == nil {
			t.Errorf("the first %d of %d bytes were taken for whole", n, len(data))
		}
		data[n] ^= 4
		if new(piece).parse(data) == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", n)
		}
		data[n] ^= 4
	}
}

// TestKilledPreparation kills a process that prepares data, again and again.
func TestKilledPreparation(t *testing.T) {
	if cache := os.Getenv("MEAP_TEST_PREPARE_CACHE"); cache != "" {
		c := DefaultConfig()
		c.Sources, c.CacheDir = []string{os.Getenv("MEAP_TEST_PREPARE_SOURCES")}, cache
		if _, err := Prepare(context.Background(), c, bytesTok, Options{Workers: 2}); err != nil {
			t.Fatal(err)
		}
		return
	}
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir, _ := mixedSources(t)
	c := DefaultConfig()
	c.Sources, c.CacheDir = []string{dir}, t.TempDir()
	want, err := Prepare(context.Background(), c, bytesTok, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for round := range 3 {
		c.CacheDir = t.TempDir()
		for range 8 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledPreparation$")
			cmd.Env = append(os.Environ(), "MEAP_TEST_PREPARE_CACHE="+c.CacheDir, "MEAP_TEST_PREPARE_SOURCES="+dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(30+r.IntN(150)) * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			cmd.Wait() // fails, because the process was killed
		}
		set, err := Prepare(context.Background(), c, bytesTok, Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, set, want)
		t.Logf("round %d: %d files reused, built %v", round, set.Reused, set.Built)
		if left := leftovers(t, c.CacheDir); len(left) != 1 {
			t.Errorf("left %v", left)
		}
	}
}
