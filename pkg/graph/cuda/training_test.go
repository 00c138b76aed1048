//go:build gpu && linux

package cuda

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// tinyModel has heads of 64, so that the tiled attention runs in bf16, grouped queries and biases.
var tinyModel = transformer.Config{
	Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 64, Dim: 32, FFN: 48, Vocab: 64, MaxSeq: 32,
	RopeTheta: 10000, NormEps: 1e-5, QKVBias: true,
}

func tinyConfig(dtype string) trainer.Config {
	c := trainer.DefaultConfig()
	c.Steps, c.Warmup, c.LearningRate, c.MinLearningRate = 20, 3, 1e-2, 1e-3
	c.MicroBatch, c.Accumulate, c.Seq = 2, 2, 24
	c.DType = dtype
	return c
}

// pattern is a trainer.Source of rows in which a token follows from the one before, but for two of each row.
type pattern struct{}

func (pattern) Collate(step int64, firstRow, rows int, b *dataset.Batch) error {
	const seq, vocab = 24, 64
	b.Rows, b.Seq = rows, seq
	for _, s := range []*[]int32{&b.Inputs, &b.Labels, &b.Positions, &b.Starts} {
		*s = make([]int32, rows*seq)
	}
	for r := range rows {
		token := int32((step*31 + int64(firstRow+r)*7) % vocab)
		for i := range seq {
			at := r*seq + i
			next := (token*5 + 3) % vocab
			if i%11 == 10 {
				next = (next + int32(step)) % vocab
			}
			b.Inputs[at], b.Labels[at], b.Positions[at] = token, next, int32(i)
			token = next
		}
		b.Labels[r*seq] = graph.IgnoreLabel
	}
	return nil
}

// training is a Stepper with its parameters.
type training struct {
	*trainer.Stepper
	params *transformer.Parameters
}

// newTraining is closed with the test.
func newTraining(t *testing.T, dev graph.Device, w *transformer.Weights, dtype string) *training {
	t.Helper()
	params, err := transformer.NewParameters(dev, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(params.Close)
	s, err := trainer.NewStepper(dev, params, tinyConfig(dtype))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &training{s, params}
}

// run takes steps from..to and returns their losses.
func (r *training) run(from, to int64) ([]float64, error) {
	schedule, _ := tinyConfig(trainer.DTypeFP32).Schedule()
	var losses []float64
	for step := from; step <= to; step++ {
		if err := r.Step(step, pattern{}, schedule.LearningRate(step)); err != nil {
			return losses, err
		}
		for {
			result, ok, err := r.Next(step == to)
			if err != nil {
				return losses, err
			}
			if !ok {
				break
			}
			losses = append(losses, result.Loss)
		}
	}
	return losses, nil
}

func (r *training) must(t *testing.T, from, to int64) []float64 {
	t.Helper()
	losses, err := r.run(from, to)
	if err != nil {
		t.Fatal(err)
	}
	if len(losses) != int(to-from+1) {
		t.Fatalf("%d losses of steps %d to %d", len(losses), from, to)
	}
	return losses
}

// TestTraining trains on the CPU and on the GPU; on the GPU also with a break after step 10.
func TestTraining(t *testing.T) {
	host, err := cpu.NewDevice(2, "auto")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	for _, c := range []struct {
		dtype     string
		tolerance float64 // relative, of a step's loss
	}{{trainer.DTypeFP32, 1e-3}, {trainer.DTypeBF16, 2e-2}} {
		t.Run(c.dtype, func(t *testing.T) {
			dev := open(t)
			want := newTraining(t, host, transformer.Init(tinyModel, 1), c.dtype).must(t, 1, 20)
			if want[19] > 0.7*want[0] {
				t.Fatalf("nothing is learnt, so nothing compared: %v", want)
			}
			run := newTraining(t, dev, transformer.Init(tinyModel, 1), c.dtype)
			have := run.must(t, 1, 10)
			weights, err := run.params.Download()
			if err != nil {
				t.Fatal(err)
			}
			moments, err := run.Moments()
			if err != nil {
				t.Fatal(err)
			}
			rest := run.must(t, 11, 20)

			worst := 0.0
			for i, loss := range append(have, rest...) {
				worst = max(worst, math.Abs(loss-want[i])/want[i])
				if !(math.Abs(loss-want[i]) <= c.tolerance*want[i]) {
					t.Errorf("step %d: loss %v, on the CPU %v", i+1, loss, want[i])
				}
			}
			t.Logf("loss %.3f to %.3f, at most %.2g from the CPU's", want[0], want[19], worst)

			again := newTraining(t, dev, weights, c.dtype)
			if err := again.SetMoments(moments); err != nil {
				t.Fatal(err)
			}
			if resumed := again.must(t, 11, 20); !slices.Equal(resumed, rest) {
				t.Errorf("losses of steps 11 to 20 after a resume\n%v, without\n%v", resumed, rest)
			}
			if c.dtype == trainer.DTypeFP32 {
				sameTexts(t, dev, host, run.params)
			}
		})
	}
}

// rare is pattern without the model's last token but in one step, whose weights can then be spoilt for that step alone.
type rare struct{ step int64 }

func (r rare) Collate(step int64, firstRow, rows int, b *dataset.Batch) error {
	if err := (pattern{}).Collate(step, firstRow, rows, b); err != nil {
		return err
	}
	last := int32(tinyModel.Vocab - 1)
	for i, id := range b.Inputs {
		if id == last {
			b.Inputs[i] = 0
		}
	}
	if step == r.step {
		b.Inputs[0] = last
	}
	return nil
}

// A step whose loss is not finite leaves weights and moments as they were, and so do the good ones that are queued behind it.
func TestNonFiniteStep(t *testing.T) {
	for _, dtype := range []string{trainer.DTypeFP32, trainer.DTypeBF16} {
		dev := open(t)
		w := transformer.Init(tinyModel, 1)
		embedding := w.Tensors[0]
		if want := tinyModel.Weights()[0]; embedding.Name != want.Name || len(embedding.Data) != tinyModel.Vocab*tinyModel.Dim {
			t.Fatalf("the first weight is %s, not the embedding", embedding.Name)
		}
		embedding.Data[len(embedding.Data)-1] = float32(math.Inf(1))
		r := newTraining(t, dev, w, dtype)
		state := func() []transformer.Tensor {
			weights, err := r.params.Download()
			if err != nil {
				t.Fatal(err)
			}
			moments, err := r.Moments()
			if err != nil {
				t.Fatal(err)
			}
			return append(moments, weights.Tensors...)
		}
		source := rare{step: 3}
		for step := int64(1); step <= 2; step++ {
			if err := r.Step(step, source, 1e-2); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Next(true); err != nil {
				t.Fatalf("%s, step %d: %v", dtype, step, err)
			}
		}
		before := state()
		for step := int64(3); step <= 6; step++ { // as many as may be under way
			if err := r.Step(step, source, 1e-2); err != nil {
				t.Fatal(err)
			}
		}
		var bad *trainer.NonFiniteError
		if _, ok, err := r.Next(false); ok || !errors.As(err, &bad) || bad.Step != 3 {
			t.Errorf("%s: want a *NonFiniteError of step 3, have %v, %v", dtype, ok, err)
		}
		for i, x := range state() {
			if !slices.EqualFunc(x.Data, before[i].Data, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Errorf("%s: %s has changed", dtype, x.Name)
			}
		}
	}
}

// sameTexts asks two devices for 16 tokens after some prompts.
func sameTexts(t *testing.T, dev, host graph.Device, params *transformer.Parameters) {
	t.Helper()
	weights, err := params.Download()
	if err != nil {
		t.Fatal(err)
	}
	onHost, err := transformer.NewParameters(host, weights)
	if err != nil {
		t.Fatal(err)
	}
	defer onHost.Close()
	prompts := [][]int32{{1}, {7, 38, 1, 8, 43}}
	generate := func(p *transformer.Parameters) []transformer.Generated {
		g, err := transformer.NewGenerator(p, transformer.GeneratorOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		out, err := g.Generate(context.Background(), prompts, transformer.Sampling{MaxNew: 16}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	have, want := generate(params), generate(onHost)
	for i := range prompts {
		if len(want[i].IDs) != 16 || !slices.Equal(have[i].IDs, want[i].IDs) {
			t.Errorf("after %v: %v, on the CPU %v", prompts[i], have[i].IDs, want[i].IDs)
		}
	}
}
