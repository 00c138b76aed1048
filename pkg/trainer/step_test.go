package trainer

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/graph/graphtest"
	"meap/pkg/graph/naive"
	"meap/pkg/transformer"
)

// bench is a Stepper with what it stands on.
type bench struct {
	*Stepper
	t      testing.TB
	params *transformer.Parameters
	cfg    Config
}

func newBench(t testing.TB, dev graph.Device, model transformer.Config, cfg Config) *bench {
	t.Helper()
	params, err := transformer.NewParameters(dev, transformer.Init(model, cfg.Seed))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(params.Close)
	s, err := NewStepper(dev, params, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &bench{s, t, params, cfg}
}

func (b *bench) source() *words { return &words{seq: b.cfg.Seq, vocab: b.params.Config().Vocab} }

// run takes steps from..to with the learning rate of the schedule.
func (b *bench) run(source Source, from, to int64) []StepResult {
	b.t.Helper()
	schedule, _ := b.cfg.Schedule()
	var results []StepResult
	for step := from; step <= to; step++ {
		if err := b.Step(step, source, schedule.LearningRate(step)); err != nil {
			b.t.Fatal(err)
		}
		for flush := step == to; ; {
			r, ok, err := b.Next(flush)
			if err != nil {
				b.t.Fatal(err)
			}
			if !ok {
				break
			}
			results = append(results, r)
		}
	}
	return results
}

func (b *bench) weights() []transformer.Tensor {
	b.t.Helper()
	w, err := b.params.Download()
	if err != nil {
		b.t.Fatal(err)
	}
	return w.Tensors
}

func (b *bench) moments() []transformer.Tensor {
	b.t.Helper()
	m, err := b.Moments()
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// farthest returns the largest difference between two lists of the same tensors.
func farthest(a, b []transformer.Tensor) (most float64) {
	for i := range a {
		for j := range a[i].Data {
			most = max(most, math.Abs(float64(a[i].Data[j])-float64(b[i].Data[j])))
		}
	}
	return most
}

// A step's loss is the mean over all its labelled tokens, however its rows are cut into micro-batches and however many labels each
// has; so are its gradients. Without that, rows with few labels would weigh more than others.
func TestAccumulationIsOneBatch(t *testing.T) {
	cfg := tinyConfig()
	cfg.MicroBatch, cfg.Accumulate = 6, 1
	dev := cpuDevice(t, 2)
	whole := newBench(t, dev, tinyModel, cfg)
	source := whole.source()
	source.unlabelled = true

	// The mean of the first step, from each row's own mean.
	var batch dataset.Batch
	one := cfg
	one.MicroBatch = 1
	single := newBench(t, dev, tinyModel, one)
	var sum float64
	var labels int64
	for row := range 6 {
		if err := source.Collate(1, row, 1, &batch); err != nil {
			t.Fatal(err)
		}
		nll, n, err := single.Evaluate(&batch)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(12 - row%3); n != want {
			t.Fatalf("row %d has %d labels, want %d", row, n, want)
		}
		sum, labels = sum+nll, labels+n
	}

	want := whole.run(source, 1, 8)
	if mean := sum / float64(labels); math.Abs(want[0].Loss-mean) > 1e-6*mean || want[0].Labelled != labels {
		t.Errorf("the first loss is %v over %d labels; its rows' is %v over %d", want[0].Loss, want[0].Labelled, mean, labels)
	}
	for _, split := range [][2]int{{3, 2}, {2, 3}, {1, 6}} {
		cfg.MicroBatch, cfg.Accumulate = split[0], split[1]
		parts := newBench(t, dev, tinyModel, cfg)
		for i, r := range parts.run(source, 1, 8) {
			if math.Abs(r.Loss-want[i].Loss) > 1e-5 || math.Abs(r.GradNorm-want[i].GradNorm) > 1e-4*want[i].GradNorm || r.Labelled != want[i].Labelled {
				t.Errorf("%d x %d, step %d: %+v, in one batch %+v", split[0], split[1], i+1, r, want[i])
			}
		}
		// AdamW divides by the root of the second moment, which blows rounding up where a gradient is near zero.
		if d := farthest(parts.weights(), whole.weights()); d > 2e-3 {
			t.Errorf("%d x %d: weights differ by %v after 8 steps at a learning rate of 1e-2", split[0], split[1], d)
		}
	}
}

func TestAccumulatorsAreZeroAfterAStep(t *testing.T) {
	dev := newSpy(cpuDevice(t, 1))
	b := newBench(t, dev, tinyModel, tinyConfig())
	b.run(b.source(), 1, 2)
	for _, label := range accumulators(t, dev) {
		m := dev.at[label]
		for i, v := range m.At(0, graph.Of(graph.F32, m.Bytes/4)).F32() {
			if v != 0 {
				t.Fatalf("%s[%d] = %v after a step", label, i, v)
			}
		}
	}
}

// accumulators returns the labels of the gradients and of the loss.
func accumulators(t *testing.T, dev *spy) []string {
	t.Helper()
	labels := []string{inputLoss}
	for label := range dev.at {
		if strings.HasPrefix(label, "grad.") {
			labels = append(labels, label)
		}
	}
	if want := 1 + len(tinyModel.Weights()); len(labels) != want {
		t.Fatalf("%d accumulators, want %d", len(labels), want)
	}
	return labels
}

// With no decay, no clipping and zero moments, the first step of AdamW moves every weight whose gradient is not tiny by the learning
// rate, and none by more: m/(1-beta1) / sqrt(v/(1-beta2)) is the gradient's sign.
func TestFirstStepByHand(t *testing.T) {
	cfg := tinyConfig()
	cfg.WeightDecay, cfg.Clip = 0, 0
	b := newBench(t, cpuDevice(t, 1), tinyModel, cfg)
	before := b.weights()
	const rate = 1e-3
	if err := b.Step(1, b.source(), rate); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := b.Next(true); !ok || err != nil {
		t.Fatal(ok, err)
	}
	moved, all := 0, 0
	for i, w := range b.weights() {
		for j, v := range w.Data {
			d := math.Abs(float64(v) - float64(before[i].Data[j]))
			if d > rate*1.001 {
				t.Fatalf("%s[%d] moved by %v", w.Name, j, d)
			}
			if d > rate*0.99 {
				moved++
			}
			all++
		}
	}
	if moved < all*3/4 { // rows of the embedding that were not in the batch stay
		t.Errorf("%d of %d weights moved by the learning rate", moved, all)
	}
}

// The weights that a refused step leaves are those before it, bit for bit, and no later step is taken either.
func TestNonFiniteStopsBeforeTheWeightsChange(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	for _, c := range []struct {
		name, spoil string
		value       float32
		tensor      string
		lossFinite  bool
	}{
		{"a gradient", "grad.model.norm.weight", nan, "model.norm.weight", true},
		{"an infinite gradient", "grad.lm_head.weight", inf, "lm_head.weight", true},
		// A loss that is not a number spoils every gradient; the first is named.
		{"a weight of the head", "lm_head.weight", nan, "model.embed_tokens.weight", false},
		{"a weight of the norm", "model.norm.weight", nan, "model.embed_tokens.weight", false},
		{"the loss", inputLoss, nan, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := newSpy(cpuDevice(t, 2))
			b := newBench(t, dev, tinyModel, tinyConfig())
			source := b.source()
			b.run(source, 1, 3)
			old := dev.spoil(t, c.spoil, c.value)
			weights, moments := bits(b.weights()), bits(b.moments())
			for step := int64(4); step <= 6; step++ {
				if err := b.Step(step, source, 1e-2); err != nil {
					t.Fatal(err)
				}
				_, ok, err := b.Next(true)
				var bad *NonFiniteError
				if ok || !errors.As(err, &bad) {
					t.Fatalf("step %d: %v, %v", step, ok, err)
				}
				if step == 4 {
					if bad.Step != 4 || bad.Tensor != c.tensor || c.lossFinite == (math.IsNaN(bad.Loss) || math.IsInf(bad.Loss, 0)) {
						t.Errorf("the error is %+v", *bad)
					}
					for _, word := range []string{"step 4", c.tensor, "weights are those of step 3", "trainer.learning_rate"} {
						if !strings.Contains(bad.Error(), word) {
							t.Errorf("the error does not say %q: %v", word, bad)
						}
					}
				}
				if !reflect.DeepEqual(bits(b.weights()), weights) || !reflect.DeepEqual(bits(b.moments()), moments) {
					t.Fatalf("step %d changed weights or moments", step)
				}
				// The cause is gone, and still no later step is taken: what was queued behind a bad step must not run.
				if step == 4 {
					dev.spoil(t, c.spoil, old)
					weights = bits(b.weights())
				}
			}
		})
	}
}

func TestStepErrors(t *testing.T) {
	b := newBench(t, cpuDevice(t, 1), tinyModel, tinyConfig())
	source := b.source()
	lost := errors.New("the shard is gone")
	source.before = func(int64, *dataset.Batch) error { return lost }
	if err := b.Step(7, source, 1e-2); !errors.Is(err, lost) || !strings.Contains(err.Error(), "step 7") {
		t.Errorf("an error of the source: %v", err)
	}
	if err := b.Step(7, unlabelled{b.source()}, 1e-2); err == nil || !strings.Contains(err.Error(), "step 7: no token of its 4 rows has a label") {
		t.Errorf("no labels: %v", err)
	}
	if _, ok, err := b.Next(true); ok || err != nil {
		t.Errorf("a step that was not taken has a result: %v, %v", ok, err)
	}
}

// unlabelled is a source whose rows have no labels.
type unlabelled struct{ *words }

func (u unlabelled) Collate(step int64, firstRow, rows int, b *dataset.Batch) error {
	err := u.words.Collate(step, firstRow, rows, b)
	for i := range b.Labels {
		b.Labels[i] = graph.IgnoreLabel
	}
	return err
}

func TestLossesDoNotDependOnThreads(t *testing.T) {
	for _, dtype := range []string{DTypeFP32, DTypeBF16} {
		cfg := tinyConfig()
		cfg.DType = dtype
		// Large enough that work is cut into pieces.
		cfg.MicroBatch, cfg.Seq = 4, 64
		model := tinyModel
		model.Dim, model.FFN, model.Vocab, model.MaxSeq = 64, 96, 160, 64
		one := newBench(t, cpuDevice(t, 1), model, cfg)
		want := one.run(one.source(), 1, 6)
		weights := bits(one.weights())
		for threads := 2; threads <= 3; threads++ {
			b := newBench(t, cpuDevice(t, threads), model, cfg)
			if got := b.run(b.source(), 1, 6); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %d threads: %v, on one thread %v", dtype, threads, got, want)
			}
			if !reflect.DeepEqual(bits(b.weights()), weights) {
				t.Errorf("%s, %d threads: other weights", dtype, threads)
			}
		}
	}
}

// The naive device is the specification of every kernel; here whole steps are compared.
func TestStepsAgainstNaive(t *testing.T) {
	cfg := tinyConfig()
	fast := newBench(t, cpuDevice(t, 2), tinyModel, cfg)
	slow := newBench(t, naive.Device[float32]{}, tinyModel, cfg)
	want := slow.run(slow.source(), 1, 12)
	for i, got := range fast.run(fast.source(), 1, 12) {
		if math.Abs(got.Loss-want[i].Loss) > 1e-4 || math.Abs(got.GradNorm-want[i].GradNorm) > 1e-2*want[i].GradNorm {
			t.Errorf("step %d: %+v, naive %+v", i+1, got, want[i])
		}
	}
}

// A run that is taken apart after six steps and put together again from weights and moments goes on with the same bits.
func TestMomentsRoundTrip(t *testing.T) {
	cfg := tinyConfig()
	dev := cpuDevice(t, 2)
	straight := newBench(t, dev, tinyModel, cfg)
	want := straight.run(straight.source(), 1, 12)

	first := newBench(t, dev, tinyModel, cfg)
	first.run(first.source(), 1, 6)
	moments := first.moments()
	weights, err := first.params.Download()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range moments {
		w := weights.Tensors[i/2]
		if name := []string{"m.", "v."}[i%2] + w.Name; m.Name != name || !reflect.DeepEqual(m.Shape, w.Shape) {
			t.Fatalf("moment %d is %s %v, want %s %v", i, m.Name, m.Shape, name, w.Shape)
		}
	}
	second := newBench(t, dev, tinyModel, cfg)
	if err := second.params.Upload(weights); err != nil {
		t.Fatal(err)
	}
	if err := second.SetMoments(moments); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(bits(second.moments()), bits(moments)) {
		t.Error("moments come back changed")
	}
	if got := second.run(second.source(), 7, 12); !reflect.DeepEqual(got, want[6:]) {
		t.Errorf("the second half is %v, of the straight run %v", got, want[6:])
	}
	if !reflect.DeepEqual(bits(second.weights()), bits(straight.weights())) {
		t.Error("the final weights differ")
	}

	wrong := append([]transformer.Tensor(nil), moments...)
	wrong[3] = transformer.Tensor{Name: wrong[3].Name, Shape: []int{1}, Data: []float32{0}}
	if err := second.SetMoments(wrong); err == nil || !strings.Contains(err.Error(), wrong[3].Name) {
		t.Errorf("a moment of another shape: %v", err)
	}
	if err := second.SetMoments(moments[1:]); err == nil || !strings.Contains(err.Error(), moments[0].Name) {
		t.Errorf("a missing moment: %v", err)
	}
}

func TestOverfitsOneBatch(t *testing.T) {
	for _, dtype := range []string{DTypeFP32, DTypeBF16} {
		cfg := tinyConfig()
		cfg.DType, cfg.Steps, cfg.WeightDecay = dtype, 120, 0
		b := newBench(t, cpuDevice(t, 2), tinyModel, cfg)
		results := b.run(sameStep{b.source()}, 1, cfg.Steps)
		first, last := results[0].Loss, results[len(results)-1].Loss
		if math.Abs(first-math.Log(float64(tinyModel.Vocab))) > 1.5 {
			t.Errorf("%s: the first loss is %v, that of a uniform guess is %v", dtype, first, math.Log(float64(tinyModel.Vocab)))
		}
		// The rows share prefixes that go on differently, so the loss does not reach 0.
		if !(last < 0.1) {
			t.Errorf("%s: the loss of one batch fell from %v to %v only", dtype, first, last)
		}
	}
}

// sameStep gives the rows of step 1 at every step.
type sameStep struct{ *words }

func (s sameStep) Collate(_ int64, firstRow, rows int, b *dataset.Batch) error {
	return s.words.Collate(1, firstRow, rows, b)
}

// bf16 rounds activations, which moves the loss, but not far.
func TestBF16(t *testing.T) {
	cfg := tinyConfig()
	dev := cpuDevice(t, 2)
	full := newBench(t, dev, tinyModel, cfg)
	want := full.run(full.source(), 1, 12)
	cfg.DType = DTypeBF16
	b := newBench(t, dev, tinyModel, cfg)
	got := b.run(b.source(), 1, 12)
	for i := range got {
		if math.Abs(got[i].Loss-want[i].Loss) > 0.02*want[i].Loss {
			t.Errorf("step %d: %v, in fp32 %v", i+1, got[i].Loss, want[i].Loss)
		}
	}
	if got[11].Loss == want[11].Loss {
		t.Error("bf16 changes nothing")
	}
}

// Recomputation trades time for memory and nothing else.
func TestRecompute(t *testing.T) {
	for _, dtype := range []string{DTypeFP32, DTypeBF16} {
		model, cfg := tinyModel, tinyConfig()
		model.Layers, cfg.DType = 5, dtype
		dev := cpuDevice(t, 2)
		kept := newBench(t, dev, model, cfg)
		want := kept.run(kept.source(), 1, 6)
		again := cfg
		again.Recompute = RecomputeBlocks
		b := newBench(t, dev, model, again)
		if got := b.run(b.source(), 1, 6); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: with recomputation %v, without %v", dtype, got, want)
		}
		if !reflect.DeepEqual(bits(b.weights()), bits(kept.weights())) {
			t.Errorf("%s: the weights differ", dtype)
		}
		for layers := 4; layers <= 16; layers *= 2 {
			model.Layers = layers
			a, b := planned(t, model, cfg)["activations"], planned(t, model, again)["activations"]
			if b >= a {
				t.Errorf("%s, %d layers: activations take %d bytes with recomputation, %d without", dtype, layers, b, a)
			}
		}
	}
}

// In bf16 a layer keeps half of the bytes for the backward pass.
func TestBF16KeepsHalf(t *testing.T) {
	model, cfg := tinyModel, tinyConfig()
	cfg.MicroBatch = 16 // tensors that alignment does not make larger
	layer := func(dtype string) int64 {
		c := cfg
		c.DType = dtype
		short, long := model, model
		short.Layers, long.Layers = 4, 12
		return (planned(t, long, c)["activations"] - planned(t, short, c)["activations"]) / 8
	}
	full, half := layer(DTypeFP32), layer(DTypeBF16)
	statistics := int64(4 * cfg.MicroBatch * cfg.Seq * (model.Heads + 2)) // attention's logsumexp and the factors of two norms stay fp32
	if want := statistics + (full-statistics)/2; half > want {
		t.Errorf("a layer takes %d bytes in bf16, %d in fp32, want at most %d", half, full, want)
	}
}

// The CPU in bf16 does what the plain loops do with every activation rounded: the losses differ by what the order of sums does to
// them, before and after rounding.
func TestBF16AgainstPlainLoops(t *testing.T) {
	cfg := tinyConfig()
	cfg.DType = DTypeBF16
	plain := newBench(t, graphtest.NewHalf(), tinyModel, cfg)
	want := plain.run(plain.source(), 1, 6)
	b := newBench(t, cpuDevice(t, 2), tinyModel, cfg)
	for i, r := range b.run(b.source(), 1, 6) {
		if off := math.Abs(r.Loss-want[i].Loss) / want[i].Loss; !(off <= 2e-3) {
			t.Errorf("step %d: loss %v, in plain loops %v", i+1, r.Loss, want[i].Loss)
		}
	}
}

func planned(t *testing.T, model transformer.Config, cfg Config) map[string]int64 {
	t.Helper()
	p, err := PlanMemory(model, cfg, cpu.Planner{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int64{}
	for _, m := range p {
		kinds[m.Kind] = m.Bytes
	}
	return kinds
}

func TestStepAllocatesNothing(t *testing.T) {
	for _, how := range [][2]string{{DTypeFP32, RecomputeNone}, {DTypeFP32, RecomputeBlocks}, {DTypeBF16, RecomputeNone}} {
		cfg := tinyConfig()
		cfg.DType, cfg.Recompute = how[0], how[1]
		b := newBench(t, cpuDevice(t, 2), tinyModel, cfg)
		source := b.source()
		step := int64(0)
		once := func() {
			step++
			if err := b.Step(step, source, 1e-3); err != nil {
				t.Fatal(err)
			}
			if _, ok, err := b.Next(false); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		once()
		if n := testing.AllocsPerRun(20, once); n != 0 {
			t.Errorf("%v: %v allocations per step", how, n)
		}
	}
}

// On a device that computes while the host goes on, results come late, in order, and are those of one that does not.
func TestAsynchronousDevice(t *testing.T) {
	cfg := tinyConfig()
	here := newBench(t, naive.Device[float32]{}, tinyModel, cfg)
	want := here.run(here.source(), 1, 10)
	schedule, _ := cfg.Schedule()
	for _, hasty := range []bool{false, true} {
		b := newBench(t, &late{Device: naive.Device[float32]{}, hasty: hasty}, tinyModel, cfg)
		source := b.source()
		var got []StepResult
		take := func(flush bool) {
			for {
				r, ok, err := b.Next(flush)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return
				}
				got = append(got, r)
			}
		}
		for step := int64(1); step <= 10; step++ {
			if err := b.Step(step, source, schedule.LearningRate(step)); err != nil {
				t.Fatal(err)
			}
			take(false)
			if want := max(0, int(step)-stepsUnderWay+1); len(got) != want {
				t.Fatalf("after step %d there are %d results, want %d", step, len(got), want)
			}
		}
		take(true)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("hasty %v: late results %v, want %v", hasty, got, want)
		}
		if !reflect.DeepEqual(bits(b.weights()), bits(here.weights())) {
			t.Errorf("hasty %v: the weights differ", hasty)
		}
	}
}

// The step that was not finite is reported, with its own tensor, although others are queued behind it; and those have not touched
// the weights.
func TestNonFiniteOnAnAsynchronousDevice(t *testing.T) {
	for _, hasty := range []bool{false, true} {
		memory := newSpy(naive.Device[float32]{})
		dev := &late{Device: memory, hasty: hasty}
		b := newBench(t, dev, tinyModel, tinyConfig())
		source := b.source()
		b.run(source, 1, 2)
		weights, moments := bits(b.weights()), bits(b.moments())
		for step := int64(3); step < 3+stepsUnderWay; step++ {
			tensor := "model.norm.weight"
			if step > 3 {
				tensor = "model.embed_tokens.weight" // which comes before the other in the model
			}
			dev.push(func() error { memory.spoil(t, gradName(tensor), float32(math.NaN())); return nil })
			if err := b.Step(step, source, 1e-2); err != nil {
				t.Fatal(err)
			}
		}
		_, ok, err := b.Next(false)
		var bad *NonFiniteError
		if ok || !errors.As(err, &bad) || bad.Step != 3 || bad.Tensor != "model.norm.weight" {
			t.Fatalf("hasty %v: %v, %v", hasty, ok, err)
		}
		if !reflect.DeepEqual(bits(b.weights()), weights) || !reflect.DeepEqual(bits(b.moments()), moments) {
			t.Errorf("hasty %v: weights or moments changed", hasty)
		}
	}
}
