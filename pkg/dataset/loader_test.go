package dataset

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sharded writes a folder by hand: the ids in shards of the given length, all
// of them one document as far as the index says.
func sharded(t testing.TB, vocab int, chunk int, ids []int32) *Stream {
	t.Helper()
	dir := t.TempDir()
	w := newShardWriter(dir, Train, vocab, 257, chunk)
	if err := w.add(ids); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	x := &Index{Version: 1, Tokenizer: bytesTok.Fingerprint(), Vocab: vocab, BOS: 256, EOS: 257,
		Train: SplitInfo{Shards: w.files, Tokens: w.tokens, Bytes: w.tokens, Documents: 1}}
	s, err := openStream(dir, Train, x)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// counting returns n ids, id i being i modulo the vocabulary.
func counting(n, vocab int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i % vocab)
	}
	return ids
}

func TestStreamReadsAcrossShards(t *testing.T) {
	for _, vocab := range []int{300, 70000} {
		ids := counting(1000, vocab)
		s := sharded(t, vocab, 7, ids)
		if len(s.shards) != 143 || s.Len() != 1000 {
			t.Fatalf("%d shards of %d tokens", len(s.shards), s.Len())
		}
		for _, span := range [][2]int{{0, 0}, {0, 1000}, {6, 1}, {6, 2}, {7, 7}, {993, 7}, {13, 500}, {1000, 0}} {
			dst := make([]int32, span[1])
			if err := s.Read(int64(span[0]), dst); err != nil || !slices.Equal(dst, ids[span[0]:span[0]+span[1]]) {
				t.Errorf("vocab %d, %d tokens from %d: %v, %v", vocab, span[1], span[0], dst, err)
			}
		}
		for _, span := range [][2]int{{-1, 1}, {1000, 1}, {994, 7}} {
			if err := s.Read(int64(span[0]), make([]int32, span[1])); err == nil {
				t.Errorf("read %d tokens from %d", span[1], span[0])
			}
		}
		dst := make([]int32, 600)
		if n, err := s.Tokens(500, dst); n != 500 || err != nil || !slices.Equal(dst[:n], ids[500:]) {
			t.Errorf("%d tokens, %v", n, err)
		}
		if n, err := s.Tokens(1000, dst); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Read(0, dst[:1]); err == nil {
			t.Error("read a closed stream")
		}
	}
}

func TestIdsBeyondTheVocabulary(t *testing.T) {
	for _, vocab := range []int{300, 70000} {
		ids := counting(20, vocab)
		ids[12] = int32(vocab)
		s := sharded(t, vocab, 8, ids)
		err := s.Read(0, make([]int32, 20))
		want := fmt.Sprintf("train_0000000001.bin: token 4 has id %d, beyond the vocabulary of %d", vocab, vocab)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "delete the folder") {
			t.Errorf("%v, want %q", err, want)
		}
		if err := s.Read(0, make([]int32, 12)); err != nil {
			t.Errorf("before it: %v", err)
		}
	}
	// A negative id, as int32 shards can hold one.
	if err := sharded(t, 70000, 8, []int32{-1}).Read(0, make([]int32, 1)); err == nil {
		t.Error("read id -1")
	}
}

func TestPermutationIsOne(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 10, 255, 256, 257, 1000, 65537} {
		p := newPermutation(n, 42, 3)
		seen := make([]bool, n)
		for i := range n {
			j := p.at(i)
			if j < 0 || j >= n || seen[j] {
				t.Fatalf("n %d: %d is at %d twice or out of range", n, j, i)
			}
			seen[j] = true
		}
	}
	p := newPermutation(1<<40+7, 1, 0) // too many to store
	if a, b := p.at(0), p.at(1<<40); a == b || a >= 1<<40+7 || b >= 1<<40+7 {
		t.Errorf("%d and %d", a, b)
	}
}

// All 120 orders of five rows come up, over epochs and over seeds, about
// equally often.
func TestPermutationIsUniform(t *testing.T) {
	const draws = 12000
	for name, make := range map[string]func(i int) permutation{
		"epochs": func(i int) permutation { return newPermutation(5, 7, int64(i)) },
		"seeds":  func(i int) permutation { return newPermutation(5, uint64(i), 0) },
	} {
		count := map[[5]int64]float64{}
		for i := range draws {
			p := make(i)
			var order [5]int64
			for j := range order {
				order[j] = p.at(int64(j))
			}
			count[order]++
		}
		chi := 0.0
		for _, c := range count {
			chi += (c - draws/120) * (c - draws/120) / (draws / 120)
		}
		// 119 degrees of freedom: mean 119, deviation 15.
		if len(count) != 120 || chi > 200 {
			t.Errorf("%s: %d orders, chi-square %.1f", name, len(count), chi)
		}
	}
}

func TestLoaderGivesEveryRowOncePerEpoch(t *testing.T) {
	ids := counting(103, 300)
	l, err := NewLoader(sharded(t, 300, 8, ids), 4, 9)
	if err != nil {
		t.Fatal(err)
	}
	if l.Rows() != 20 || l.Seq() != 4 { // blocks of 5; the last 3 tokens are left out
		t.Fatalf("%d rows of %d", l.Rows(), l.Seq())
	}
	row := make([]int32, 5)
	orders := map[string]bool{}
	for epoch := range int64(4) {
		var order []int32
		for i := range l.Rows() {
			position := epoch*l.Rows() + i
			if err := l.Row(position, row); err != nil {
				t.Fatal(err)
			}
			at := row[0]
			if at%5 != 0 || !slices.Equal(row, ids[at:at+5]) || l.Epoch(position) != epoch {
				t.Fatalf("position %d: row %v", position, row)
			}
			order = append(order, at)
		}
		orders[fmt.Sprint(order)] = true
		slices.Sort(order)
		if len(slices.Compact(order)) != 20 {
			t.Errorf("epoch %d repeats a row", epoch)
		}
	}
	if len(orders) != 4 {
		t.Errorf("4 epochs have %d orders", len(orders))
	}
	other, err := NewLoader(l.Stream, 4, 10)
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for i := range l.Rows() {
		a, b := make([]int32, 5), make([]int32, 5)
		if err := l.Row(i, a); err != nil {
			t.Fatal(err)
		}
		if err := other.Row(i, b); err != nil {
			t.Fatal(err)
		}
		if slices.Equal(a, b) {
			same++
		}
	}
	if same > 5 {
		t.Errorf("another seed leaves %d of 20 rows where they were", same)
	}
}

func TestLoaderRefusesTooLittle(t *testing.T) {
	s := sharded(t, 300, 8, counting(16, 300))
	if l, err := NewLoader(s, 15, 1); err != nil || l.Rows() != 1 {
		t.Errorf("exactly one row: %v", err)
	}
	for seq, words := range map[int][]string{
		16: {"16 tokens", "trainer.seq = 16 takes 17", s.Dir, "data.sources"},
		0:  {"trainer.seq = 0"},
	} {
		_, err := NewLoader(s, seq, 1)
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("seq %d: %v, want %q", seq, err, word)
			}
		}
	}
}

func TestOpen(t *testing.T) {
	set := prepared(t, map[string]string{"a.txt": "0123456789"})
	l, err := set.Open(Train, 5, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Rows() != 2 {
		t.Errorf("%d rows", l.Rows())
	}
	for split, word := range map[string]string{Validation: "data.validation", "test": "no split"} {
		if _, err := set.Open(split, 5, 1); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", split, err)
		}
	}
	if _, err := Open(t.TempDir(), Train, 5, 1); err == nil || !strings.Contains(err.Error(), "meap data prepare") {
		t.Errorf("an unprepared folder: %v", err)
	}
}

// A file made by the reference's writer has the header's chunk length in
// every shard; it is read like ours.
func TestPaddingIsNeverRead(t *testing.T) {
	s := sharded(t, 300, 100, counting(50, 300))
	info, err := os.Stat(filepath.Join(s.Dir, s.Info.Shards[0].Name))
	if err != nil || info.Size() != headerSize+2*100 {
		t.Fatalf("%v, %v", info, err)
	}
	if err := s.Read(49, make([]int32, 2)); err == nil {
		t.Error("read what fills the shard up")
	}
}

func TestHeldOut(t *testing.T) {
	const x = Ignore
	ids := []int32{256, 'a', 'b', 257, 256, 'c', 'd', 257, 256, 'e', 'f', 'g', 257}
	for documentMask, starts := range map[bool][]int32{false: {0, 0, 0, 0}, true: {0, 0, 0, 3}} {
		l, err := NewLoader(sharded(t, 259, 5, ids), 4, 0) // <s>ab</s><s> and cd</s><s>e; fg</s> is left out
		if err != nil {
			t.Fatal(err)
		}
		h := NewHeldOut(l, documentMask)
		if h.Rows() != 2 {
			t.Fatalf("%d rows", h.Rows())
		}
		var b Batch
		if err := h.Fill(0, 3, &b); err != nil { // one row more than there are
			t.Fatal(err)
		}
		// Where a document begins is no label, with or without the mask.
		first := []int32{'a', 'b', 257, x}
		second := []int32{'d', 257, x, 'e'}
		firstAt, secondAt := 0, 1
		if b.Inputs[0] == 'c' {
			firstAt, secondAt = 1, 0
		}
		row := func(s []int32, r int) []int32 { return s[4*r : 4*r+4] }
		if !slices.Equal(row(b.Inputs, firstAt), ids[:4]) || !slices.Equal(row(b.Labels, firstAt), first) ||
			!slices.Equal(row(b.Inputs, secondAt), ids[5:9]) || !slices.Equal(row(b.Labels, secondAt), second) ||
			!slices.Equal(row(b.Starts, secondAt), starts) || !slices.Equal(row(b.Labels, 2), []int32{x, x, x, x}) || b.Labelled != 6 {
			t.Errorf("document mask %v: inputs %v labels %v starts %v labelled %d", documentMask, b.Inputs, b.Labels, b.Starts, b.Labelled)
		}
		if n := testing.AllocsPerRun(10, func() { h.Fill(0, 2, &b) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	set := prepared(t, map[string]string{"a.txt": "abcdefg", "b.txt": "hi"})
	l, err := set.Open(Train, 4, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// 9 letters; they and two EOS are labels.
	if got := NewHeldOut(l, false).BytesPerToken(); math.Abs(got-9.0/11) > 1e-12 {
		t.Errorf("%v bytes per token", got)
	}
}
