package dialogue

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
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph/cpu"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

var export = flag.String("export", "", "folder that TestGolden writes its weights and dialogues to, for scripts/peer/golden_sft.py")

const goldenFile = "testdata/golden_sft.json"

// goldenTolerance is how far a loss may be from PyTorch's, a gradient norm as a share of it.
const goldenTolerance = 1e-4

// goldenCases are tiny runs that PyTorch has made too.
var goldenCases = map[string]Config{
	"rows":           {Copies: CopiesRows, Ratio: 0.1, MinTarget: 20},
	"concat":         {Copies: CopiesConcat, Ratio: 0.1, MinTarget: 20},
	"concat-visible": {Copies: CopiesConcat, ConcatVisible: true, Ratio: 0.1, MinTarget: 20},
}

// goldenConfig has a learning rate far above a real run's, so that 20 steps show a mistake.
func goldenConfig() trainer.Config {
	c := trainer.DefaultConfig()
	c.Steps, c.Warmup, c.LearningRate, c.MinLearningRate, c.WeightDecay = 20, 5, 5e-3, 5e-4, 0.1
	c.MicroBatch, c.Accumulate, c.Seq, c.Seed, c.DType = 2, 2, 256, 7, trainer.DTypeFP32
	return c
}

func goldenSource(t *testing.T, c Config) *Source {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	words := strings.Fields("who wrote the first book about models that learn to read what is hidden from them and why")
	sentence := func(n int) string {
		var w []string
		for range 1 + r.IntN(n) {
			w = append(w, words[r.IntN(len(words))])
		}
		return strings.Join(w, " ")
	}
	cfg := goldenConfig()
	o := options(t, c, cfg.Seq)
	var all [][]Message
	for range 30 {
		m := say(sentence(6)+"?", sentence(10)+".")
		if r.IntN(2) == 0 {
			m = append(m, say(sentence(3)+"?", sentence(4)+".")...)
		}
		all = append(all, m)
	}
	return source(t, examples(t, o, all...), o, cfg.RowsPerStep())
}

func goldenWeights() *transformer.Weights {
	return transformer.Init(transformer.Config{
		Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 16, Dim: 64, FFN: 172, Vocab: 320, MaxSeq: 256, RopeTheta: 10000, NormEps: 1e-5}, 7)
}

// goldenExample is a line of the exported examples.jsonl.
type goldenExample struct {
	Step    int64    `json:"step"`
	IDs     []int32  `json:"ids"`
	Answers [][2]int `json:"answers"`
	Masked  []int32  `json:"masked"` // positions in ids
}

// writeDown writes the examples of the run as lines of JSON and returns the SHA-256 of their numbers.
func writeDown(t *testing.T, s *Source, steps int64, lines io.Writer) string {
	t.Helper()
	sum, encoder := sha256.New(), json.NewEncoder(lines)
	number := func(v ...int32) {
		if err := binary.Write(sum, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	for step := int64(1); step <= steps; step++ {
		for _, row := range s.layout.of(step) {
			for _, p := range row {
				if p.part > 0 {
					continue
				}
				i, epoch := s.layout.example(p.position)
				e := s.examples[i]
				g := goldenExample{Step: step, IDs: e.IDs, Answers: [][2]int{}}
				g.Masked = append([]int32{}, s.options.Policy.Apply(slices.Clone(e.IDs), e.Answers, epoch, i, nil)...)
				number(int32(step))
				number(g.IDs...)
				for _, a := range e.Answers {
					g.Answers = append(g.Answers, [2]int{a.Start, a.End})
					number(int32(a.Start), int32(a.End))
				}
				number(g.Masked...)
				if err := encoder.Encode(g); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func exportGolden(t *testing.T, name string, c Config) {
	t.Helper()
	dir, cfg := filepath.Join(*export, name), goldenConfig()
	if err := transformer.Save(dir, goldenWeights()); err != nil {
		t.Fatal(err)
	}
	settings, err := json.MarshalIndent(map[string]any{
		"steps": cfg.Steps, "warmup": cfg.Warmup, "learning_rate": cfg.LearningRate, "min_learning_rate": cfg.MinLearningRate,
		"weight_decay": cfg.WeightDecay, "beta1": cfg.Beta1, "beta2": cfg.Beta2, "epsilon": cfg.Epsilon, "clip": cfg.Clip,
		"mask_id": mask, "concat": c.Copies == CopiesConcat, "concat_visible": c.ConcatVisible,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	writeDown(t, goldenSource(t, c), cfg.Steps, &lines)
	for file, data := range map[string][]byte{"training.json": settings, "examples.jsonl": lines.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden fine-tunes as PyTorch did, which had each copy of each dialogue as a sequence of its own and labels that are not
// shifted: packing into rows and where labels stand change nothing. The golden file is made anew by
//
//	go test ./pkg/dataset/dialogue -run TestGolden -count=1 -export DIR
//	python scripts/peer/golden_sft.py DIR > pkg/dataset/dialogue/testdata/golden_sft.json
func TestGolden(t *testing.T) {
	if *export != "" {
		for name, c := range goldenCases {
			exportGolden(t, name, c)
		}
		t.Skipf("wrote weights and dialogues to %s", *export)
	}
	text, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		MadeBy string `json:"made_by"`
		Cases  map[string]struct {
			ExamplesSHA256 string    `json:"examples_sha256"`
			Labelled       []int64   `json:"labelled"`
			Loss           []float64 `json:"loss"`
			GradNorm       []float64 `json:"grad_norm"`
			Loss64         []float64 `json:"loss_float64"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	dev, err := cpu.NewDevice(2, trainer.Auto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.Close)
	for name, c := range goldenCases {
		t.Run(name, func(t *testing.T) {
			cfg, want := goldenConfig(), golden.Cases[name]
			s := goldenSource(t, c)
			if len(want.Loss) != int(cfg.Steps) || writeDown(t, s, cfg.Steps, io.Discard) != want.ExamplesSHA256 {
				t.Fatalf("the examples are no longer those of %s; where they were meant to change, make it anew with %s", goldenFile, golden.MadeBy)
			}
			losses, far, far64 := fineTune(t, dev, s, cfg), 0.0, 0.0
			for i, r := range losses {
				if r.Labelled != want.Labelled[i] {
					t.Errorf("step %d: %d labels, PyTorch counted %d", r.Step, r.Labelled, want.Labelled[i])
				}
				if d := math.Abs(r.Loss - want.Loss[i]); !(d <= goldenTolerance) {
					t.Errorf("step %d: loss %.7f, PyTorch's %.7f", r.Step, r.Loss, want.Loss[i])
				}
				if d := math.Abs(r.GradNorm/want.GradNorm[i] - 1); !(d <= goldenTolerance) {
					t.Errorf("step %d: gradient norm %.7f, PyTorch's %.7f", r.Step, r.GradNorm, want.GradNorm[i])
				}
				far, far64 = max(far, math.Abs(r.Loss-want.Loss[i])), max(far64, math.Abs(r.Loss-want.Loss64[i]))
			}
			t.Logf("loss %.3f -> %.3f; at most %.1e from PyTorch's in fp32, %.1e from fp64", losses[0].Loss, losses[len(losses)-1].Loss, far, far64)
		})
	}
}

// fineTune runs the steps of a configuration.
func fineTune(t *testing.T, dev *cpu.Device, s trainer.Source, cfg trainer.Config) (results []trainer.StepResult) {
	t.Helper()
	params, err := transformer.NewParameters(dev, goldenWeights())
	if err != nil {
		t.Fatal(err)
	}
	defer params.Close()
	stepper, err := trainer.NewStepper(dev, params, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer stepper.Close()
	schedule, _ := cfg.Schedule()
	for step := int64(1); step <= cfg.Steps; step++ {
		if err := stepper.Step(step, s, schedule.LearningRate(step)); err != nil {
			t.Fatal(err)
		}
		r, _, err := stepper.Next(true)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	return results
}

// TestConcatEqualsRows trains the same examples with their copies in two rows and in one: where the second copy does not see the
// first, the losses are equal up to rounding. One example fills every step, so that both ways take the same ones.
func TestConcatEqualsRows(t *testing.T) {
	dev, err := cpu.NewDevice(2, trainer.Auto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.Close)
	run := func(copies string, visible bool) []trainer.StepResult {
		c := Config{Copies: copies, ConcatVisible: visible, Ratio: 0.1, MinTarget: 20}
		cfg := goldenConfig()
		cfg.Steps, cfg.Warmup, cfg.MicroBatch, cfg.Accumulate = 6, 2, 1, 1
		o := options(t, c, cfg.Seq)
		var all [][]Message
		for i := range 10 {
			all = append(all, say(fmt.Sprint("a question of some length with the number ", i), strings.Repeat(fmt.Sprint("answer ", i, " "), 7)))
		}
		return fineTune(t, dev, source(t, examples(t, o, all...), o, 1), cfg)
	}
	rows, concat, visible := run(CopiesRows, false), run(CopiesConcat, false), run(CopiesConcat, true)
	same := true
	for i := range rows {
		if rows[i].Labelled != concat[i].Labelled || math.Abs(rows[i].Loss-concat[i].Loss) > 1e-5 {
			t.Errorf("step %d: loss %v of %d labels in one row, %v of %d in two", i+1, concat[i].Loss, concat[i].Labelled, rows[i].Loss, rows[i].Labelled)
		}
		same = same && math.Abs(visible[i].Loss-concat[i].Loss) < 1e-5
	}
	if same {
		t.Error("seeing the first copy changes nothing")
	}
}
