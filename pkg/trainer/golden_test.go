package trainer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/graph/naive"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
	"meap/pkg/transformer"
)

var export = flag.String("export", "", "folder that TestGolden writes its weights and batches to, for scripts/peer/golden.py")

const goldenFile = "testdata/golden.json"

// A loss may differ by this much from PyTorch's, a gradient norm by this share of it. Both compute in fp32, so that the last digits
// depend on the order of sums.
const goldenTolerance = 1e-4

// goldenCase is a tiny run that PyTorch has made too.
type goldenCase struct {
	name         string
	model        transformer.Config
	documentMask bool
}

// The learning rate and weight decay are far higher than a real run's, so that 20 steps show a mistake in either.
func goldenConfig() Config {
	c := DefaultConfig()
	c.Steps, c.Warmup, c.LearningRate, c.MinLearningRate, c.WeightDecay = 20, 5, 5e-3, 5e-4, 0.1
	c.MicroBatch, c.Accumulate, c.Seq, c.Seed, c.DType = 4, 2, 64, 7, DTypeFP32
	return c
}

func goldenCases() []goldenCase {
	base := transformer.Config{
		Layers: 3, Heads: 4, KVHeads: 2, HeadDim: 16, Dim: 64, FFN: 172, Vocab: 320, MaxSeq: 64, RopeTheta: 10000, NormEps: 1e-5,
	}
	tied := base
	tied.Layers, tied.TieEmbeddings, tied.QKVBias = 2, true, true
	return []goldenCase{
		{name: "untied", model: base},
		{name: "tied-bias-documents", model: tied, documentMask: true},
	}
}

// collator packs a made-up text of short documents, several to a row, and collates it as pretrain does.
func (g goldenCase) collator(t *testing.T, cfg Config) *dataset.Collator {
	t.Helper()
	dir := t.TempDir()
	words := strings.Fields("the a model reads masked text and learns which word comes next after every other one of them")
	for file := range 300 {
		random := rand.New(rand.NewPCG(2502, uint64(file)))
		var text strings.Builder
		for range 2 + random.IntN(12) {
			text.WriteString(words[random.IntN(len(words))] + " ")
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.txt", file)), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data := dataset.DefaultConfig()
	data.Sources, data.ValidationFraction, data.CacheDir = []string{dir}, 0, t.TempDir()
	tok := tokenizer.ByteLevel{}
	set, err := dataset.Prepare(t.Context(), data, tok, dataset.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	loader, err := set.Open(dataset.Train, cfg.Seq, cfg.Seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loader.Close(); err != nil {
			t.Error(err)
		}
	})
	policy, err := masking.New(masking.DefaultConfig(), tok.Mask(), tok.Special(), cfg.Seed)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dataset.NewCollator(loader, policy, cfg.RowsPerStep(), g.documentMask)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// microBatch is a line of the exported batches.jsonl: [micro_batch * seq] ids each, row by row.
type microBatch struct {
	Step      int64   `json:"step"`
	Inputs    []int32 `json:"inputs"`
	Labels    []int32 `json:"labels"`
	Positions []int32 `json:"positions"`
	Starts    []int32 `json:"starts"`
}

// record collates the batches of the run, writes them as lines of JSON and returns the SHA-256 of their ids.
func (g goldenCase) record(t *testing.T, cfg Config, lines io.Writer) string {
	t.Helper()
	source, sum, encoder := g.collator(t, cfg), sha256.New(), json.NewEncoder(lines)
	var b dataset.Batch
	for step := int64(1); step <= cfg.Steps; step++ {
		for i := range cfg.Accumulate {
			if err := source.Collate(step, i*cfg.MicroBatch, cfg.MicroBatch, &b); err != nil {
				t.Fatal(err)
			}
			for _, ids := range [][]int32{b.Inputs, b.Labels, b.Positions, b.Starts} {
				if err := binary.Write(sum, binary.LittleEndian, ids); err != nil {
					t.Fatal(err)
				}
			}
			if err := encoder.Encode(microBatch{step, b.Inputs, b.Labels, b.Positions, b.Starts}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// export writes what golden.py trains from: a model folder, the settings and the batches.
func (g goldenCase) export(t *testing.T, dir string, cfg Config) {
	t.Helper()
	dir = filepath.Join(dir, g.name)
	if err := transformer.Save(dir, transformer.Init(g.model, cfg.Seed)); err != nil {
		t.Fatal(err)
	}
	settings, err := json.MarshalIndent(map[string]any{
		"steps": cfg.Steps, "warmup": cfg.Warmup, "learning_rate": cfg.LearningRate, "min_learning_rate": cfg.MinLearningRate,
		"weight_decay": cfg.WeightDecay, "beta1": cfg.Beta1, "beta2": cfg.Beta2, "epsilon": cfg.Epsilon, "clip": cfg.Clip,
		"micro_batch": cfg.MicroBatch, "accumulate": cfg.Accumulate, "seq": cfg.Seq,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var batches bytes.Buffer
	g.record(t, cfg, &batches)
	for name, data := range map[string][]byte{"training.json": settings, "batches.jsonl": batches.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// golden is testdata/golden.json, which scripts/peer/golden.py writes.
type golden struct {
	MadeBy string                `json:"made_by"`
	Cases  map[string]goldenLoss `json:"cases"`
}

type goldenLoss struct {
	WeightsAbsSum float64   `json:"weights_abs_sum"` // sum of the absolute values of the initial weights
	BatchesSHA256 string    `json:"batches_sha256"`  // of inputs, labels, positions, starts of each micro-batch, little-endian
	Labelled      []int64   `json:"labelled"`
	LearningRate  []float64 `json:"learning_rate"`
	Loss          []float64 `json:"loss"` // fp32
	GradNorm      []float64 `json:"grad_norm"`
	Loss64        []float64 `json:"loss_float64"` // the same run in fp64
}

func readGolden(t *testing.T) golden {
	t.Helper()
	text, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	return g
}

// TestGolden trains two tiny models as PyTorch trained them: same initial weights, same masked batches. The golden file is made anew by
//
//	go test ./pkg/trainer -run TestGolden -count=1 -export DIR
//	python scripts/peer/golden.py DIR > pkg/trainer/testdata/golden.json
func TestGolden(t *testing.T) {
	cfg := goldenConfig()
	if *export != "" {
		for _, g := range goldenCases() {
			g.export(t, *export, cfg)
		}
		t.Skipf("wrote weights and batches to %s", *export)
	}
	want := readGolden(t)
	devices := goldenDevices(t)
	for _, g := range goldenCases() {
		t.Run(g.name, func(t *testing.T) {
			w, ok := want.Cases[g.name]
			if !ok || len(w.Loss) != int(cfg.Steps) {
				t.Fatalf("%s has no %d steps of it; make the file anew with %s", goldenFile, cfg.Steps, want.MadeBy)
			}
			weights := transformer.Init(g.model, cfg.Seed)
			var sum float64
			for _, tensor := range weights.Tensors {
				for _, v := range tensor.Data {
					sum += math.Abs(float64(v))
				}
			}
			if math.Abs(sum/w.WeightsAbsSum-1) > 1e-9 {
				t.Fatalf("the initial weights are no longer those of %s (absolute sum %v, was %v)", goldenFile, sum, w.WeightsAbsSum)
			}
			if sum := g.record(t, cfg, io.Discard); sum != w.BatchesSHA256 {
				t.Fatalf("the batches are no longer those of %s (SHA-256 %s, was %s)", goldenFile, sum, w.BatchesSHA256)
			}
			for _, d := range devices {
				t.Run(d.name, func(t *testing.T) { g.compare(t, d, weights, cfg, w) })
			}
		})
	}
}

// goldenDevice trains the first steps of the golden runs.
type goldenDevice struct {
	name string
	graph.Device
	steps int64
}

// goldenDevices are the CPU with every level of kernels that this machine runs, and the plain loops. What has no machine code takes
// too long for 20 steps: the plain loops always, the Go kernels where the race detector watches them (-short). Three steps are
// enough to need both moments and their corrections.
func goldenDevices(t *testing.T) []goldenDevice {
	t.Helper()
	var devices []goldenDevice
	for _, isa := range cpu.AvailableISAs() {
		dev, err := cpu.NewDevice(2, isa.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(dev.Close)
		steps := goldenConfig().Steps
		if isa == cpu.Generic && testing.Short() {
			steps = 3
		}
		devices = append(devices, goldenDevice{"cpu " + isa.String(), dev, steps})
	}
	if !testing.Short() {
		devices = append(devices, goldenDevice{"naive", naive.Device[float32]{}, 3})
	}
	return devices
}

func (g goldenCase) compare(t *testing.T, dev goldenDevice, weights *transformer.Weights, cfg Config, want goldenLoss) {
	params, err := transformer.NewParameters(dev, weights)
	if err != nil {
		t.Fatal(err)
	}
	defer params.Close()
	s, err := NewStepper(dev, params, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	schedule, _ := cfg.Schedule()
	source := g.collator(t, cfg)
	var far, far64, theirs, farNorm float64 // largest differences
	for step := int64(1); step <= dev.steps; step++ {
		lr := schedule.LearningRate(step)
		if err := s.Step(step, source, lr); err != nil {
			t.Fatal(err)
		}
		r, _, err := s.Next(true)
		if err != nil {
			t.Fatal(err)
		}
		i := step - 1
		if math.Abs(lr/want.LearningRate[i]-1) > 1e-12 {
			t.Errorf("step %d: learning rate %v, PyTorch's run had %v", step, lr, want.LearningRate[i])
		}
		if r.Labelled != want.Labelled[i] {
			t.Errorf("step %d: %d labelled tokens, PyTorch counted %d", step, r.Labelled, want.Labelled[i])
		}
		difference, norm := math.Abs(r.Loss-want.Loss[i]), math.Abs(r.GradNorm/want.GradNorm[i]-1)
		if !(difference <= goldenTolerance) {
			t.Errorf("step %d: loss %.7f, PyTorch's %.7f", step, r.Loss, want.Loss[i])
		}
		if !(norm <= goldenTolerance) {
			t.Errorf("step %d: gradient norm %.7f, PyTorch's %.7f", step, r.GradNorm, want.GradNorm[i])
		}
		far, farNorm = max(far, difference), max(farNorm, norm)
		far64, theirs = max(far64, math.Abs(r.Loss-want.Loss64[i])), max(theirs, math.Abs(want.Loss[i]-want.Loss64[i]))
	}
	t.Logf("%d losses, at most %.1e from PyTorch's in fp32 and %.1e from those in fp64, which PyTorch's own fp32 is %.1e from; "+
		"gradient norms within a factor of 1 ± %.1e", dev.steps, far, far64, theirs, farNorm)
}
