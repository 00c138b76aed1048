package transformer

import (
	"context"
	"flag"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"meap/pkg/graph"
)

var update = flag.Bool("update", false, "write the models under testdata/hf anew; then run scripts/peer/hf_logits.py on them")

// hfModels are the models whose logits Hugging Face transformers computed: our own folders, and one that it saved itself, in bf16
// and in shards.
var hfModels = map[string]Config{
	"llama": hfConfigOf(nil),
	"tied":  hfConfigOf(func(c *Config) { c.TieEmbeddings, c.KVHeads = true, 1 }),
	"qwen2": hfConfigOf(func(c *Config) { c.QKVBias, c.RopeTheta, c.NormEps, c.HeadDim = true, 1e6, 1e-6, 4 }),
	// The 40 ids are more than the positions before scaling.
	"linear":  scaled(RopeScaling{Type: RopeLinear, Factor: 4}),
	"dynamic": scaled(RopeScaling{Type: RopeDynamic, Factor: 4, Original: 24}),
	"yarn":    scaled(RopeScaling{Type: RopeYarn, Factor: 4, Original: 24, BetaFast: 4, BetaSlow: 0.5, AttentionFactor: 1.25}),
	"llama3":  scaled(RopeScaling{Type: RopeLlama3, Factor: 4, Original: 24, LowFreqFactor: 0.5, HighFreqFactor: 4}),
}

func scaled(s RopeScaling) Config {
	return hfConfigOf(func(c *Config) { c.MaxSeq, c.RopeTheta, c.RopeScaling = 24, 100, s })
}

const hfSaved = "saved_by_transformers"

func hfConfigOf(change func(*Config)) Config {
	c := Config{Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Dim: 16, FFN: 24, Vocab: 32, MaxSeq: 64, RopeTheta: 10000, NormEps: 1e-5}
	if change != nil {
		change(&c)
	}
	return c
}

// lively returns weights of which none is trivial: Init's norms are all 1 and its biases 0.
func lively(c Config, seed uint64) *Weights {
	w := Init(c, seed)
	for i, d := range c.Weights() {
		if d.Std == 0 {
			key := tensorKey(seed+1, d.Name)
			for j := range w.Tensors[i].Data {
				w.Tensors[i].Data[j] += float32(0.3 * normal(key, uint64(j)))
			}
		}
	}
	return w
}

// hfGolden is what hf_logits.py writes.
type hfGolden struct {
	Transformers string      `json:"transformers"`
	IDs          []int32     `json:"ids"`
	Logits       [][]float32 `json:"logits"` // after each of the ids
	Greedy       []int32     `json:"greedy"` // what generate() adds to the first 8 ids
}

// The logits of every position are those of Hugging Face transformers, and so are the tokens that it generates.
func TestLogitsOfTransformers(t *testing.T) {
	for _, name := range append(slices.Sorted(maps.Keys(hfModels)), hfSaved) {
		eachDevice(t, name+"/", func(t *testing.T, dev graph.Device) {
			dir := filepath.Join("testdata", "hf", name)
			if c, ours := hfModels[name]; ours && *update {
				if err := Save(dir, lively(c, 3)); err != nil {
					t.Fatal(err)
				}
			}
			w, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			w.Config = w.Config.Extended()
			w.Config.MaxSeq = max(w.Config.MaxSeq, 40) // transformers has no limit, and linear states none
			var golden hfGolden
			if err := readJSON(filepath.Join(dir, "logits.json"), &golden); err != nil {
				t.Fatal(err)
			}
			params := parametersOn(t, dev, w)
			logits := fullLogits(t, params, golden.IDs)
			var worst, largest float64
			for i, row := range golden.Logits {
				for j, want := range row {
					worst = max(worst, math.Abs(float64(logits[i][j]-want)))
					largest = max(largest, math.Abs(float64(want)))
				}
			}
			t.Logf("transformers %s: logits up to %.2f differ by at most %.1e", golden.Transformers, largest, worst)
			if worst > 1e-5 || largest < 0.5 {
				t.Errorf("logits up to %g differ by %g", largest, worst)
			}

			g, err := NewGenerator(params, GeneratorOptions{Chunk: 5})
			if err != nil {
				t.Fatal(err)
			}
			out, err := g.Generate(context.Background(), [][]int32{golden.IDs[:8]}, Sampling{MaxNew: len(golden.Greedy)}, nil)
			if err != nil || !slices.Equal(out[0].IDs, golden.Greedy) {
				t.Errorf("generated %v, %v, transformers generated %v", out[0], err, golden.Greedy)
			}
		})
	}
}

// fullLogits are the logits after every token of one row, without caches.
func fullLogits(t *testing.T, params *Parameters, ids []int32) [][]float32 {
	t.Helper()
	n := len(ids)
	if err := params.setContext(n); err != nil {
		t.Fatal(err)
	}
	b := graph.NewBuilder(graph.F32)
	logits := Build(b, params.Config(), 1, n, graph.FP32).Logits()
	p, err := b.Compile(params.Device(), graph.Options{Bind: params.Bindings()}, logits)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(i)
	}
	for name, data := range map[string][]int32{InputIDs: ids, InputPositions: positions, InputStarts: make([]int32, n)} {
		if err := p.Upload(name, graph.Bytes(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	vocab := params.Config().Vocab
	flat := make([]float32, n*vocab)
	if err := params.Device().Download(graph.Bytes(flat), p.Output(logits)); err != nil {
		t.Fatal(err)
	}
	return slices.Collect(slices.Chunk(flat, vocab))
}
