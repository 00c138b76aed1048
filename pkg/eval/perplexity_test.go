package eval

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestWindows(t *testing.T) {
	for _, c := range []struct {
		n, seq int
		want   []Window
	}{
		{1, 4, []Window{{-1, 0, 1}}},
		{4, 4, []Window{{-1, 0, 4}}},
		// One token is left over: its window reads the three before its context.
		{5, 4, []Window{{-1, 0, 4}, {0, 4, 5}}},
		{10, 4, []Window{{-1, 0, 4}, {3, 4, 8}, {5, 8, 10}}},
		{3, 1, []Window{{-1, 0, 1}, {0, 1, 2}, {1, 2, 3}}},
	} {
		if got := Windows(c.n, c.seq); !reflect.DeepEqual(got, c.want) {
			t.Errorf("Windows(%d, %d) = %v, want %v", c.n, c.seq, got, c.want)
		}
	}
}

// Every token is predicted once, no window holds more than seq+1 tokens, and
// all windows but the first have at least one token of context.
func TestWindowsCover(t *testing.T) {
	for n := 1; n < 40; n++ {
		for seq := 1; seq < 12; seq++ {
			next := 0
			for i, w := range Windows(n, seq) {
				if w.Score != next || w.End <= w.Score || w.End-w.Start > seq+1 || (i > 0 && (w.Start < 0 || w.Start >= w.Score)) {
					t.Fatalf("n %d seq %d: window %d is %v after %d tokens", n, seq, i, w, next)
				}
				if i > 0 && w.End-w.Start != seq+1 {
					t.Fatalf("n %d seq %d: window %d has a short context: %v", n, seq, i, w)
				}
				next = w.End
			}
			if next != n {
				t.Fatalf("n %d seq %d: %d tokens scored", n, seq, next)
			}
		}
	}
}

func TestPerplexityUniform(t *testing.T) {
	text := &Text{IDs: make([]int32, 1000), Size: 2000}
	got, err := Perplexity(context.Background(), uniform(256, 64), text, PerplexityConfig{Batch: 3})
	if err != nil {
		t.Fatal(err)
	}
	// float32(-ln 256) is 2e-8 off, nothing else may add to that.
	if math.Abs(got.Perplexity-256) > 256*3e-8 || math.Abs(got.BitsPerByte-4) > 4*3e-8 {
		t.Errorf("perplexity %.12g, bits per byte %.12g; want 256 and 8 bits * 1000 tokens / 2000 bytes = 4", got.Perplexity, got.BitsPerByte)
	}
	if got.Tokens != 1000 || got.Bytes != 2000 || got.Windows != 16 || got.Seq != 64 {
		t.Errorf("%+v", got)
	}
}

// The model gives P(id | previous) = 1/2 after an even id, 1/8 after an odd
// one; the prefix 7 is odd. Stream 0 1 2 2: 1/8, 1/2, 1/8, 1/2 makes 8 bits.
func TestPerplexityByHand(t *testing.T) {
	model := scorerFunc{2, func(ids []int32, at int) float64 {
		if ids[at-1]%2 == 0 {
			return -math.Ln2
		}
		return -3 * math.Ln2
	}}
	for batch := 1; batch < 4; batch++ {
		got, err := Perplexity(context.Background(), model, &Text{IDs: []int32{0, 1, 2, 2}, Size: 16}, PerplexityConfig{Batch: batch, Prefix: 7})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.Nats-8*math.Ln2) > 1e-6 || math.Abs(got.Perplexity-4) > 1e-6 || math.Abs(got.BitsPerByte-0.5) > 1e-7 {
			t.Errorf("batch %d: %+v, want 8 bits, perplexity 4, 0.5 bits per byte", batch, got)
		}
	}
}

// The model sees exactly the tokens that a window holds.
func TestPerplexitySequences(t *testing.T) {
	var seen [][]int32
	model := scorerFunc{4, func(ids []int32, at int) float64 {
		if at == len(ids)-1 {
			seen = append(seen, append([]int32{int32(at)}, ids...))
		}
		return -1
	}}
	ids := []int32{10, 11, 12, 13, 14, 15}
	if _, err := Perplexity(context.Background(), model, &Text{IDs: ids, Size: 6}, PerplexityConfig{Batch: 1, Prefix: 99}); err != nil {
		t.Fatal(err)
	}
	want := [][]int32{{4, 99, 10, 11, 12, 13}, {4, 11, 12, 13, 14, 15}}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("sequences %v, want %v", seen, want)
	}
	if !reflect.DeepEqual(ids, []int32{10, 11, 12, 13, 14, 15}) {
		t.Errorf("the stream was changed: %v", ids)
	}
}

func TestPerplexityLimitAndProgress(t *testing.T) {
	var sofar []int
	text := &Text{IDs: byteTok{}.Encode([]byte(prose(1000)), nil), Size: 1000, Decode: byteTok{}.Decode}
	got, err := Perplexity(context.Background(), uniform(4, 64), text, PerplexityConfig{Batch: 2, Limit: 300, Seq: 50, Progress: func(r PerplexityResult, n int) {
		if n != 300 || math.Abs(r.Perplexity-4) > 1e-5 {
			t.Errorf("progress: %d tokens, perplexity %v", n, r.Perplexity)
		}
		sofar = append(sofar, r.Tokens)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Tokens != 300 || got.Bytes != 300 || !reflect.DeepEqual(sofar, []int{100, 200, 300}) {
		t.Errorf("%+v after %v", got, sofar)
	}
}

func TestPerplexityErrors(t *testing.T) {
	nan := scorerFunc{8, func(_ []int32, at int) float64 {
		if at == 3 {
			return math.NaN()
		}
		return -1
	}}
	broken := failing{}
	ids := []int32{1, 2, 3, 4, 5}
	for _, c := range []struct {
		name, want string
		model      Scorer
		ids        []int32
		cfg        PerplexityConfig
	}{
		{"too long", "--seq 9", uniform(2, 8), ids, PerplexityConfig{Batch: 1, Seq: 9}},
		{"limit", "--limit -1", uniform(2, 8), ids, PerplexityConfig{Batch: 1, Limit: -1}},
		{"batch", "--batch 0", uniform(2, 8), ids, PerplexityConfig{}},
		{"empty", "no tokens", uniform(2, 8), nil, PerplexityConfig{Batch: 1}},
		{"nan", "token 3 (id 3) is NaN", nan, ids, PerplexityConfig{Batch: 1}},
		{"model", "out of memory", broken, ids, PerplexityConfig{Batch: 1}},
	} {
		_, err := Perplexity(context.Background(), c.model, &Text{IDs: c.ids}, c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

type failing struct{}

func (failing) MaxSeq() int { return 8 }
func (failing) LogProbs(context.Context, []Sequence) ([][]float32, error) {
	return nil, errors.New("out of memory")
}

// The bigram model is measured on the tokens that the model is measured on, each after the one before it, wherever a window begins.
func TestPerplexityBigram(t *testing.T) {
	const bos = 9
	model := scorerFunc{2, func([]int32, int) float64 { return -math.Ln2 }}
	for _, c := range []struct {
		limit int
		want  [][2]int32
	}{
		{0, [][2]int32{{bos, 1}, {1, 2}, {2, 3}, {bos, 4}}},
		{3, [][2]int32{{bos, 1}, {1, 2}}},
	} {
		var pairs [][2]int32
		cfg := PerplexityConfig{Batch: 2, Limit: c.limit, Prefix: bos, Uncounted: []int32{bos}, Bigram: func(before, id int32) float64 {
			pairs = append(pairs, [2]int32{before, id})
			return 3 * math.Ln2
		}}
		text := &Text{IDs: []int32{bos, 1, 2, 3, bos, 4}, Size: 8, Decode: func(ids []int32) []byte { return make([]byte, 8) }}
		got, err := Perplexity(context.Background(), model, text, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(pairs, c.want) || got.Tokens != len(c.want) {
			t.Errorf("limit %d: pairs %v, %d tokens, want %v", c.limit, pairs, got.Tokens, c.want)
		}
		n := float64(len(c.want))
		if math.Abs(got.BigramPerplexity-8) > 1e-12 || math.Abs(got.BigramBitsPerByte-3*n/8) > 1e-12 || math.Abs(got.BitsPerByte-n/8) > 1e-6 {
			t.Errorf("limit %d: %+v", c.limit, got)
		}
	}
}
