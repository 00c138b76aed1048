package transformer

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// Log-probabilities from chunks are those of the full pass, whatever the chunks, the batch and the order of the calls.
func TestLogProbsInChunks(t *testing.T) { eachDevice(t, "", testLogProbsInChunks) }

func testLogProbsInChunks(t *testing.T, dev graph.Device) {
	c := with(tiny, func(c *Config) { c.MaxSeq = 50 })
	params := parametersOn(t, dev, lively(c, 1))
	whole := NewScorer(params)
	defer whole.Close()
	var ids [][]int32
	var from []int
	for i, n := range []int{51, 51, 33, 2, 17, 1, 50, 51} {
		// The first halves are the same, so that caches are used again.
		ids = append(ids, append(randomIDs(c, n/2, 0), randomIDs(c, n-n/2, uint64(1+i))...))
		from = append(from, 1+i*n/8)
	}
	want, err := whole.LogProbs(context.Background(), ids, from)
	if err != nil {
		t.Fatal(err)
	}
	same := func(name string, got [][]float32, err error) {
		t.Helper()
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d sequences, %v", name, len(got), err)
		}
		for i := range want {
			if len(got[i]) != len(want[i]) {
				t.Fatalf("%s, sequence %d: %d values, want %d", name, i, len(got[i]), len(want[i]))
			}
			if d := largestDifference(t, got[i], want[i]); d > 1e-5 {
				t.Errorf("%s, sequence %d differs by %g", name, i, d)
			}
		}
	}
	for _, o := range []GeneratorOptions{{Chunk: 7}, {Chunk: 16, Batch: 3}, {Chunk: 50, Batch: 8}, {Chunk: 1, Batch: 2}} {
		g := newGenerator(t, params, o)
		for range 2 {
			got, err := g.LogProbs(context.Background(), ids, from)
			same("generator", got, err)
			// Generation in between doesn't disturb, nor is it disturbed.
			out, err := g.Generate(context.Background(), [][]int32{ids[2]}, Sampling{MaxNew: 3}, nil)
			if err != nil {
				t.Fatal(err)
			}
			fresh, err := newGenerator(t, params, o).Generate(context.Background(), [][]int32{ids[2]}, Sampling{MaxNew: 3}, nil)
			if err != nil || !slices.Equal(out[0].IDs, fresh[0].IDs) {
				t.Errorf("generated %v, with fresh caches %v, %v", out, fresh, err)
			}
		}
	}
	short := NewScorer(params)
	defer short.Close()
	short.tokens = 16
	for range 2 {
		got, err := short.LogProbs(context.Background(), ids, from)
		same("scorer", got, err)
	}
	for _, p := range short.programs {
		if p.length > 16 {
			t.Errorf("a program for rows of %d tokens", p.length)
		}
	}

	g := newGenerator(t, params, GeneratorOptions{Context: 20, Chunk: 8})
	for want, c := range map[string]struct {
		ids  []int32
		from int
	}{
		"must have one before it": {ids[0], 0},
		"22 tokens are more":      {ids[0][:22], 1},
		"id 50, outside":          {[]int32{1, 50}, 1},
	} {
		if _, err := g.LogProbs(context.Background(), [][]int32{c.ids}, []int{c.from}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.LogProbs(ctx, [][]int32{ids[2][:20]}, []int{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// countingDevice counts the runs of an operator that every step of a model has one of per layer, and the memory taken.
type countingDevice struct {
	graph.Device
	steps *int
	taken map[string]int
}

func (d countingDevice) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k, err := d.Device.Kernel(op, in, out)
	if _, cached := op.(graph.CachedAttention); !cached {
		return k, err
	}
	return func(in, out []graph.Buffer) error {
		*d.steps += in[0].Shape[0]
		return k(in, out)
	}, err
}

func (d countingDevice) Alloc(label string, bytes int) (graph.Memory, error) {
	if !strings.HasPrefix(label, "cache.") {
		d.taken[label] += bytes
	}
	return d.Device.Alloc(label, bytes)
}

// Prompts that begin alike are read from where they differ, and scoring a prompt leaves nothing to read for its continuation.
func TestSharedPrefix(t *testing.T) {
	steps := 0
	dev := countingDevice{naive.Device[float32]{}, &steps, map[string]int{}}
	c := with(tiny, func(c *Config) { c.Layers = 1 })
	g := newGenerator(t, parametersOn(t, dev, lively(c, 1)), GeneratorOptions{Chunk: 4})
	prompt, answer := randomIDs(c, 20, 1), []int32{3, 1, 4}
	read := func(what string, want int, do func() error) {
		t.Helper()
		steps = 0
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if steps != want {
			t.Errorf("%s: %d positions were computed, want %d", what, steps, want)
		}
	}
	ctx := context.Background()
	score := func(ids []int32, from int) func() error {
		return func() error { _, err := g.LogProbs(ctx, [][]int32{ids}, []int{from}); return err }
	}
	read("the first", 24, score(slices.Concat(prompt, answer), 20)) // 22 tokens in chunks of 4
	read("its continuation", 1+2, func() error {
		_, err := g.Generate(ctx, [][]int32{prompt}, Sampling{MaxNew: 3}, nil)
		return err
	})
	other := slices.Clone(prompt)
	other[13]++
	read("another from token 13 on", 12, score(slices.Concat(other, answer), 20)) // 22-13 in chunks of 4
	read("the same for its last token", 4, score(slices.Concat(other, answer), 22))
	g.Reset()
	read("after Reset", 24, score(slices.Concat(other, answer), 20))
}

// Beside the caches, a generator takes as much memory for long contexts as for short ones, and a scorer no more for long rows than
// for those that it computes at once.
func TestMemoryOfLongContexts(t *testing.T) {
	c := with(tiny, func(c *Config) { c.MaxSeq = 4096 })
	steps := 0
	total := func(use func(p *Parameters)) (bytes int) {
		taken := map[string]int{}
		params := parametersOn(t, countingDevice{naive.Device[float32]{}, &steps, taken}, lively(c, 1))
		clear(taken) // weights and tables
		use(params)
		for _, n := range taken {
			bytes += n
		}
		return bytes
	}
	generator := func(n int) int {
		return total(func(p *Parameters) {
			g := newGenerator(t, p, GeneratorOptions{Context: n, Chunk: 16})
			if _, err := g.LogProbs(context.Background(), [][]int32{{1, 2, 3}}, []int{1}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if short, long := generator(64), generator(4096); short != long || short == 0 {
		t.Errorf("%d bytes beside the caches for 64 tokens, %d for 4096", short, long)
	}
	scorer := func(n int) int {
		return total(func(p *Parameters) {
			s := NewScorer(p)
			s.tokens = 16
			defer s.Close()
			if _, err := s.LogProbs(context.Background(), [][]int32{randomIDs(c, n, 1)}, []int{n - 1}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if short, long := scorer(40), scorer(300); short != long || short == 0 {
		t.Errorf("%d bytes beside the caches for 40 tokens, %d for 300", short, long)
	}
	if got, want := tiny.CacheBytes(10), int64(2*2*10*2*6*4); got != want { // keys and values, layers, tokens, kv heads, elements
		t.Errorf("caches of 10 tokens take %d bytes, want %d", got, want)
	}
}

// Dynamic scaling looks at each sequence's own length, whichever others are scored or continued with it.
func TestDynamicScalingInBatches(t *testing.T) { eachDevice(t, "", testDynamicScalingInBatches) }

func testDynamicScalingInBatches(t *testing.T, dev graph.Device) {
	c := with(tiny, func(c *Config) {
		c.MaxSeq, c.RopeTheta, c.RopeScaling = 48, 100, RopeScaling{Type: RopeDynamic, Factor: 4, Original: 12}
	})
	params := parametersOn(t, dev, lively(c, 1))
	var ids [][]int32
	var from []int
	for i, n := range []int{30, 8, 31, 12, 13, 31, 40} {
		ids = append(ids, randomIDs(c, n, uint64(i%4)))
		from = append(from, 1)
	}
	var want [][]float32
	var greedy []int32
	for _, row := range ids {
		var logp []float32
		for i, l := range fullLogits(t, params, row[:len(row)-1]) {
			var sum float64
			for _, v := range l {
				sum += math.Exp(float64(v))
			}
			logp = append(logp, float32(float64(l[row[i+1]])-math.Log(sum)))
		}
		want = append(want, logp)
		last := fullLogits(t, params, row)[len(row)-1]
		greedy = append(greedy, int32(slices.Index(last, slices.Max(last))))
	}
	s := NewScorer(params)
	defer s.Close()
	chunked := NewScorer(params)
	defer chunked.Close()
	chunked.tokens = 16
	g := newGenerator(t, params, GeneratorOptions{Batch: 3, Chunk: 8})
	for name, score := range map[string]func(context.Context, [][]int32, []int) ([][]float32, error){
		"scorer": s.LogProbs, "in chunks": chunked.LogProbs, "generator": g.LogProbs,
	} {
		got, err := score(context.Background(), ids, from)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if d := largestDifference(t, got[i], want[i]); d > 1e-5 {
				t.Errorf("%s, sequence %d of %d tokens differs by %g", name, i, len(ids[i]), d)
			}
		}
		out, err := g.Generate(context.Background(), ids, Sampling{MaxNew: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range out {
			if out[i].IDs[0] != greedy[i] {
				t.Errorf("after %s, prompt %d of %d tokens is continued by %d, want %d", name, i, len(ids[i]), out[i].IDs[0], greedy[i])
			}
		}
	}
}
