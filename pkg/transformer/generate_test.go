package transformer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
)

func randomIDs(c Config, n int, seed uint64) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(mix(seed<<20+uint64(i)) % uint64(c.Vocab))
	}
	return ids
}

func newGenerator(t *testing.T, p *Parameters, o GeneratorOptions) *Generator {
	t.Helper()
	g, err := NewGenerator(p, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func largestDifference(t *testing.T, got, want []float32) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d logits, want %d", len(got), len(want))
	}
	d := 0.0
	for i := range got {
		d = max(d, math.Abs(float64(got[i]-want[i])))
	}
	return d
}

// Whatever a sequence is cut into, the logits after each token are those of the whole sequence at once; and the others in the
// batch, shorter and longer, don't matter.
func TestCachedLogits(t *testing.T) {
	eachDevice(t, "", testCachedLogits)
}

func testCachedLogits(t *testing.T, dev graph.Device) {
	params := parametersOn(t, dev, lively(tiny, 1))
	lengths := []int{32, 1, 13}
	var ids [][]int32
	want := map[int][][]float32{}
	for s, n := range lengths {
		ids = append(ids, randomIDs(tiny, n, uint64(s)))
		want[s] = fullLogits(t, params, ids[s])
	}
	for _, chunk := range []int{1, 3, 8, 32} {
		for _, cut := range []int{1, 2, 5, 7, 32} { // tokens per call
			t.Run(fmt.Sprintf("chunk %d, cut %d", chunk, cut), func(t *testing.T) {
				g := newGenerator(t, params, GeneratorOptions{Batch: 4, Chunk: chunk})
				for from := 0; from < 32; from += cut {
					next := make([][]int32, len(ids))
					for s, row := range ids {
						next[s] = row[min(from, len(row)):min(from+cut, len(row))]
					}
					got, err := g.Extend(next)
					if err != nil {
						t.Fatal(err)
					}
					for s := range ids {
						if len(next[s]) == 0 {
							if got[s] != nil {
								t.Errorf("logits of sequence %d, which had no new tokens", s)
							}
							continue
						}
						if d := largestDifference(t, got[s], want[s][min(from+cut, len(ids[s]))-1]); d > 1e-5 {
							t.Errorf("sequence %d, %d tokens: logits differ by %g", s, from+cut, d)
						}
					}
				}
				// The context of 32 is full.
				if _, err := g.Extend([][]int32{{1}}); err == nil || !strings.Contains(err.Error(), "context of 32") {
					t.Errorf("a token beyond the context: %v", err)
				}
				g.Reset()
				got, err := g.Extend(ids[2:3])
				if err != nil {
					t.Fatal(err)
				}
				if d := largestDifference(t, got[0], want[2][12]); d > 1e-5 {
					t.Errorf("after Reset logits differ by %g", d)
				}
			})
		}
	}
}

// On the cpu device the logits are the same to the last bit, for heads and rows that fill more than one tile.
func TestCachedLogitsToTheLastBit(t *testing.T) {
	dev, err := cpu.NewDevice(2, "")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	c := Config{Layers: 2, Heads: 4, KVHeads: 1, HeadDim: 64, Dim: 192, FFN: 320, Vocab: 300, MaxSeq: 300, RopeTheta: 10000, NormEps: 1e-5}
	params := parametersOn(t, dev, lively(c, 1))
	ids := [][]int32{randomIDs(c, 300, 1), randomIDs(c, 77, 2)}
	var want [][]float32
	for _, row := range ids {
		full := fullLogits(t, params, row)
		want = append(want, full[len(row)-1])
	}
	for _, chunk := range []int{300, 128, 64, 33, 7} {
		g := newGenerator(t, params, GeneratorOptions{Batch: 2, Chunk: chunk})
		got, err := g.Extend(ids)
		if err != nil {
			t.Fatal(err)
		}
		for s := range ids {
			if !slices.Equal(got[s], want[s]) {
				t.Errorf("chunk %d, sequence %d: logits differ by %g", chunk, s, largestDifference(t, got[s], want[s]))
			}
		}
	}
}

// Greedy generation is the argmax of the full forward pass, step by step.
func TestGenerateGreedy(t *testing.T) {
	eachDevice(t, "", testGenerateGreedy)
}

func testGenerateGreedy(t *testing.T, dev graph.Device) {
	params := parametersOn(t, dev, lively(tiny, 2))
	prompts := [][]int32{randomIDs(tiny, 5, 1), randomIDs(tiny, 11, 2), randomIDs(tiny, 1, 3)}
	var want [][]int32
	for _, p := range prompts {
		ids := slices.Clone(p)
		for range 9 {
			logits := fullLogits(t, params, ids)
			best := 0
			for i, l := range logits[len(ids)-1] {
				if l > logits[len(ids)-1][best] {
					best = i
				}
			}
			ids = append(ids, int32(best))
		}
		want = append(want, ids[len(p):])
	}
	for _, batch := range []int{1, 2, 3, 5} {
		g := newGenerator(t, params, GeneratorOptions{Batch: batch, Chunk: 4})
		emitted := make([][]int32, len(prompts))
		out, err := g.Generate(context.Background(), prompts, Sampling{MaxNew: 9}, func(i int, id int32) { emitted[i] = append(emitted[i], id) })
		if err != nil {
			t.Fatal(err)
		}
		for i := range prompts {
			if !slices.Equal(out[i].IDs, want[i]) || out[i].Reason != ReasonLength || !slices.Equal(emitted[i], want[i]) {
				t.Errorf("batch %d, prompt %d: %v (emitted %v), want %v", batch, i, out[i], emitted[i], want[i])
			}
		}
	}
	// The third token generated ends the text.
	g := newGenerator(t, params, GeneratorOptions{})
	stop := want[0][2]
	cut := slices.Index(want[0], stop)
	out, err := g.Generate(context.Background(), prompts[:1], Sampling{MaxNew: 9, Stop: []int32{-1, stop}}, nil)
	if err != nil || out[0].Reason != ReasonStop || !slices.Equal(out[0].IDs, want[0][:cut]) {
		t.Errorf("stop at %d: %v, %v, want %v", stop, out, err, want[0][:cut])
	}
}

func TestGenerateEnds(t *testing.T) {
	params := onNaive(t, lively(tiny, 2))
	g := newGenerator(t, params, GeneratorOptions{Batch: 2, Context: 10, Chunk: 16})
	// A context of 10 holds 10 tokens; the last one's successor is predicted, too.
	out, err := g.Generate(context.Background(), [][]int32{randomIDs(tiny, 7, 1), randomIDs(tiny, 10, 2)}, Sampling{}, nil)
	if err != nil || len(out[0].IDs) != 4 || len(out[1].IDs) != 1 || out[0].Reason != ReasonContext || out[1].Reason != ReasonContext {
		t.Errorf("%v, %v", out, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out, err = g.Generate(ctx, [][]int32{{1}}, Sampling{}, func(int, int32) { cancel() })
	if !errors.Is(err, context.Canceled) || len(out[0].IDs) != 1 || out[0].Reason != ReasonCancelled {
		t.Errorf("cancelled: %v, %v", out, err)
	}
	for want, prompts := range map[string][][]int32{
		"prompt 1 is empty":     {{1}, {}},
		"more than the context": {randomIDs(tiny, 11, 1)},
		"id 50, outside":        {{1, 50}},
		"id -1, outside":        {{-1}},
	} {
		if _, err := g.Generate(context.Background(), prompts, Sampling{MaxNew: 1}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q", prompts, err, want)
		}
	}
	if _, err := g.Extend(make([][]int32, 3)); err == nil {
		t.Error("more sequences than Batch")
	}
	bad := Sampling{Temperature: math.NaN(), TopK: -1, TopP: 2, MaxNew: -1}
	_, err = g.Generate(context.Background(), [][]int32{{1}}, bad, nil)
	for _, field := range []string{"temperature", "top_k", "top_p", "max_new"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in: %v", field, err)
		}
	}
	for _, o := range []GeneratorOptions{{Batch: -1}, {Context: 33}, {Chunk: -1}} {
		if _, err := NewGenerator(params, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	broken := lively(tiny, 1)
	broken.Tensors[len(broken.Tensors)-1].Data[5*tiny.Dim] = float32(math.NaN())
	g = newGenerator(t, onNaive(t, broken), GeneratorOptions{})
	if _, err := g.Generate(context.Background(), [][]int32{{1}}, Sampling{MaxNew: 1}, nil); err == nil || !strings.Contains(err.Error(), "logit of id 5") {
		t.Errorf("NaN in the weights: %v", err)
	}
}

// What is sampled for a prompt depends on seed and index, not on the batch it is in.
func TestGenerateSampled(t *testing.T) {
	eachDevice(t, "", testGenerateSampled)
}

func testGenerateSampled(t *testing.T, dev graph.Device) {
	params := parametersOn(t, dev, lively(tiny, 2))
	prompts := [][]int32{{1, 2}, {1, 2}, {7}, {1, 2}}
	s := Sampling{Temperature: 1, Seed: 9, MaxNew: 12}
	generate := func(batch int, s Sampling) []Generated {
		out, err := newGenerator(t, params, GeneratorOptions{Batch: batch, Chunk: 1 + batch}).Generate(context.Background(), prompts, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	one, all := generate(1, s), generate(4, s)
	for i := range one {
		if !slices.Equal(one[i].IDs, all[i].IDs) {
			t.Errorf("prompt %d: alone %v, in a batch %v", i, one[i], all[i])
		}
	}
	if slices.Equal(one[0].IDs, one[1].IDs) {
		t.Error("the same prompt twice gives the same text")
	}
	s.Seed++
	if slices.Equal(generate(4, s)[0].IDs, one[0].IDs) {
		t.Error("another seed gives the same text")
	}
}

// Frequencies of many choices against probabilities computed by hand.
func TestChoose(t *testing.T) {
	logit := func(p float64) float32 { return float32(math.Log(p)) }
	logits := []float32{logit(0.1), logit(0.4), logit(0.2), logit(0.3)}
	square := 0.01 + 0.16 + 0.04 + 0.09
	for name, c := range map[string]struct {
		s    Sampling
		want []float64
	}{
		"all":             {Sampling{Temperature: 1}, []float64{0.1, 0.4, 0.2, 0.3}},
		"temperature 1/2": {Sampling{Temperature: 0.5}, []float64{0.01 / square, 0.16 / square, 0.04 / square, 0.09 / square}},
		"top_k 2":         {Sampling{Temperature: 1, TopK: 2}, []float64{0, 4. / 7, 0, 3. / 7}},
		"top_k 9":         {Sampling{Temperature: 1, TopK: 9}, []float64{0.1, 0.4, 0.2, 0.3}},
		"top_p 0.6":       {Sampling{Temperature: 1, TopP: 0.6}, []float64{0, 4. / 7, 0, 3. / 7}},
		"top_p 0.01":      {Sampling{Temperature: 1, TopP: 0.01}, []float64{0, 1, 0, 0}},
		"k 3, then p 0.7": {Sampling{Temperature: 1, TopK: 3, TopP: 0.7}, []float64{0, 4. / 7, 0, 3. / 7}},
		"greedy":          {Sampling{}, []float64{0, 1, 0, 0}},
	} {
		const n = 20000
		chooser := newSampler(c.s, 3)
		counts := make([]float64, len(logits))
		for position := range n {
			id, err := chooser.choose(logits, position)
			if err != nil {
				t.Fatal(err)
			}
			counts[id]++
		}
		for i, p := range c.want {
			if sigma := math.Sqrt(p * (1 - p) / n); math.Abs(counts[i]/n-p) > 5*sigma {
				t.Errorf("%s: id %d in %.4f of the cases, want %.4f", name, i, counts[i]/n, p)
			}
		}
	}
	tie, _ := newSampler(Sampling{}, 0).choose([]float32{1, 2, 2}, 0)
	if tie != 1 {
		t.Errorf("of two equal logits %d was chosen", tie)
	}
}

func TestNeverIsNeverChosen(t *testing.T) {
	for _, temperature := range []float64{0, 1} {
		s := newSampler(Sampling{Temperature: temperature, Never: []int32{1, 3}}, 0)
		for position := range 200 {
			id, err := s.choose([]float32{0, 9, 1, 8}, position)
			if err != nil || id == 1 || id == 3 {
				t.Fatalf("temperature %v: chose %d (%v)", temperature, id, err)
			}
		}
	}
}
