package trainer

import (
	"fmt"
	"maps"
	"math"
	"runtime/debug"
	"slices"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/transformer"
)

// Source gives the rows of each optimiser step, inputs already masked. Which rows, in which order and with which masks must
// depend on step and row only, so that a run is the same for any split into micro-batches.
type Source interface {
	// Collate fills b with rows firstRow .. firstRow+rows-1 of an optimiser step, both counted as the step's whole batch
	// counts them: steps from 1, rows from 0.
	Collate(step int64, firstRow, rows int, b *dataset.Batch) error
}

// Positioner is a Source whose rows are not rows of the data, several examples sharing one: it says itself where in the data a run
// stands after a step, in complete passes and in examples since the start of the run.
type Positioner interface {
	Position(step int64) (epoch, position int64)
}

// Stepper runs optimiser steps. It owns the gradients and AdamW's moments, and two compiled programs over them: one adds the
// gradients of a micro-batch, the other clips and updates.
//
// Step queues a step, Next gives the results in order. On a device that works while the host goes on, a few steps are under way
// before the first result is asked for; the device itself takes no step after one that was not finite.
type Stepper struct {
	cfg     Config
	dev     graph.Device
	params  *transformer.Parameters
	moments []graph.Buffer // m and v of each weight in turn
	owned   []graph.Memory

	micro, update   *graph.Program
	report, squares graph.Buffer
	batches         []dataset.Batch
	hyper           [3]float32
	scale           [1]float32

	slots         []slot // a ring of results
	oldest, count int

	evaluate *graph.Program // made when first needed
	nll      graph.Buffer   // its result
}

// slot holds one result on its way from the device.
type slot struct {
	result  StepResult
	report  [3]float32
	squares []float32
	pending [2]graph.Pending
}

// StepResult is what one optimiser step computed.
type StepResult struct {
	Step     int64
	Loss     float64 // mean over the labelled tokens of the step, nats
	GradNorm float64 // before clipping
	Labelled int64   // tokens that counted in the loss
}

// stepsUnderWay is how many steps an asynchronous device may be behind.
const stepsUnderWay = 4

// NonFiniteError says that a step was refused because its loss or a gradient was not finite. The weights are those of the
// step before.
type NonFiniteError struct {
	Step   int64
	Tensor string // the first tensor whose gradient is not finite, "" where only the loss is not
	Loss   float64
}

func (e *NonFiniteError) Error() string {
	what := fmt.Sprintf("the loss is %v", e.Loss)
	if e.Tensor != "" {
		what = fmt.Sprintf("the gradient of %s is not finite (loss %v)", e.Tensor, e.Loss)
	}
	return fmt.Sprintf("step %d: %s; the weights are those of step %d; resume with a lower trainer.learning_rate or trainer.clip, "+
		"or look at this step's rows with `meap data inspect`", e.Step, what, e.Step-1)
}

// Names of the gradient accumulators and moments of a parameter, as inputs of the programs.
func gradName(p string) string   { return "grad." + p }
func firstName(p string) string  { return "m." + p }
func secondName(p string) string { return "v." + p }

const (
	inputLoss   = "step.loss" // sum of the micro-batches' losses, each already divided by the step's labelled tokens
	inputHalted = "step.halted"
	inputHyper  = "adamw.hyper"
)

// precision maps trainer.dtype to the precision of matrix products.
func (c Config) precision() graph.Precision {
	if c.DType == DTypeBF16 {
		return graph.BF16Operands
	}
	return graph.FP32
}

func (c Config) graphOptions(bind map[string]graph.Buffer) graph.Options {
	return graph.Options{Bind: bind, Recompute: c.Recompute == RecomputeBlocks}
}

// trainGraph builds the graph of one micro-batch: forward, backward, and loss and gradients added to their accumulators.
func trainGraph(model transformer.Config, cfg Config) (*graph.Builder, []*graph.Node, error) {
	b := graph.NewBuilder(graph.F32)
	m := transformer.Build(b, model, cfg.MicroBatch, cfg.Seq, cfg.precision())
	loss, _ := m.Loss()
	loss, grads, err := b.Grad(loss, m.Params...)
	if err != nil {
		return nil, nil, err
	}
	roots := []*graph.Node{b.Accumulate(b.FloatInput(inputLoss), loss)}
	for i, p := range m.Params {
		acc := b.Input(gradName(p.Name()), graph.DescOf(p))
		roots = append(roots, b.Accumulate(acc, grads[i]))
	}
	return b, roots, nil
}

// updateGraph builds the graph that ends a step: the norm of the accumulated gradients, the step's report, and AdamW for every
// parameter. Its first two roots are the report and the gradients' sums of squares.
func updateGraph(model transformer.Config, cfg Config) (*graph.Builder, []*graph.Node) {
	b := graph.NewBuilder(graph.F32)
	spec := graph.AdamW{Beta1: cfg.Beta1, Beta2: cfg.Beta2, Epsilon: cfg.Epsilon, WeightDecay: cfg.WeightDecay, Clip: cfg.Clip}
	weights := model.Weights()
	grads := make([]*graph.Node, len(weights))
	for i, w := range weights {
		grads[i] = b.FloatInput(gradName(w.Name), w.Shape...)
	}
	norm := b.GradNorm(grads...)
	report := b.StepReport(b.FloatInput(inputLoss), norm, b.FloatInput(inputHalted))
	hyper := b.FloatInput(inputHyper, 3)
	roots := []*graph.Node{report, b.Aux(norm, 1)}
	for i, w := range weights {
		p := b.FloatInput(w.Name, w.Shape...)
		m := b.FloatInput(firstName(w.Name), w.Shape...)
		v := b.FloatInput(secondName(w.Name), w.Shape...)
		roots = append(roots, b.AdamW(spec, p, grads[i], m, v, report, hyper))
	}
	return b, roots
}

// stateTensors are the tensors that a Stepper keeps from step to step and that its programs share, beside the parameters.
func stateTensors(model transformer.Config) map[string]graph.Desc {
	state := map[string]graph.Desc{inputLoss: graph.Of(graph.F32), inputHalted: graph.Of(graph.F32)}
	for _, w := range model.Weights() {
		for _, name := range []string{gradName(w.Name), firstName(w.Name), secondName(w.Name)} {
			state[name] = graph.Of(graph.F32, w.Shape...)
		}
	}
	return state
}

// validationGraph builds the graph of a validation batch: its mean loss.
func validationGraph(model transformer.Config, cfg Config) (*graph.Builder, *graph.Node) {
	b := graph.NewBuilder(graph.F32)
	loss, _ := transformer.Build(b, model, cfg.MicroBatch, cfg.Seq, cfg.precision()).Loss()
	return b, loss
}

// NewStepper compiles the step for a model's weights on their device. The moments start at zero.
func NewStepper(dev graph.Device, params *transformer.Parameters, cfg Config) (*Stepper, error) {
	debug.FreeOSMemory() // what is garbage by now, such as the weights that the host had read, would add to what the step takes
	s := &Stepper{cfg: cfg, dev: dev, params: params, batches: make([]dataset.Batch, cfg.Accumulate)}
	if err := s.compile(); err != nil {
		s.Close()
		return nil, fmt.Errorf("compile the training step: %w", err)
	}
	s.slots = make([]slot, 1)
	if dev.Async() {
		s.slots = make([]slot, stepsUnderWay)
	}
	for i := range s.slots {
		s.slots[i].squares = make([]float32, len(params.Config().Weights()))
	}
	return s, nil
}

// alloc takes zeroed memory for a tensor that lives as long as the Stepper, all of which the first step reads and then writes.
func (s *Stepper) alloc(name string, d graph.Desc) (graph.Buffer, error) {
	mem, err := s.dev.Alloc(name, d.Bytes())
	if err != nil {
		return graph.Buffer{}, err
	}
	s.owned = append(s.owned, mem)
	if d, ok := s.dev.(graph.Toucher); ok {
		d.Touch(mem)
	}
	return mem.At(0, d), nil
}

func (s *Stepper) compile() error {
	bind := s.params.Bindings()
	state := stateTensors(s.params.Config())
	for _, name := range slices.Sorted(maps.Keys(state)) {
		buf, err := s.alloc(name, state[name])
		if err != nil {
			return err
		}
		bind[name] = buf
	}
	for _, w := range s.params.Config().Weights() {
		s.moments = append(s.moments, bind[firstName(w.Name)], bind[secondName(w.Name)])
	}
	b, roots, err := trainGraph(s.params.Config(), s.cfg)
	if err != nil {
		return err
	}
	if s.micro, err = b.Compile(s.dev, s.cfg.graphOptions(bind), roots...); err != nil {
		return err
	}
	b, roots = updateGraph(s.params.Config(), s.cfg)
	if s.update, err = b.Compile(s.dev, graph.Options{Bind: bind}, roots...); err != nil {
		return err
	}
	s.report, s.squares = s.update.Output(roots[0]), s.update.Output(roots[1])
	return nil
}

// Step queues one optimiser step at a learning rate; Next gives its result. Call Next until it has none before Step is called
// with as many steps under way as there is room for, that is, after every Step.
func (s *Stepper) Step(step int64, source Source, learningRate float64) error {
	if s.count == len(s.slots) {
		panic("trainer: Step without Next")
	}
	r := StepResult{Step: step}
	for i := range s.batches {
		if err := source.Collate(step, i*s.cfg.MicroBatch, s.cfg.MicroBatch, &s.batches[i]); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		r.Labelled += labelled(s.batches[i].Labels)
	}
	if r.Labelled == 0 {
		return fmt.Errorf("step %d: no token of its %d rows has a label; look at them with `meap data inspect`", step, s.cfg.RowsPerStep())
	}
	s.scale[0] = float32(1 / float64(r.Labelled))
	for i := range s.batches {
		if err := s.run(s.micro, &s.batches[i]); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	s.hyper = [3]float32{
		float32(learningRate),
		float32(1 / (1 - math.Pow(s.cfg.Beta1, float64(step)))),
		float32(1 / (1 - math.Pow(s.cfg.Beta2, float64(step)))),
	}
	if err := s.update.Upload(inputHyper, graph.Bytes(s.hyper[:])); err != nil {
		return err
	}
	if err := s.update.Run(); err != nil {
		return fmt.Errorf("step %d: update: %w", step, err)
	}
	slot := &s.slots[(s.oldest+s.count)%len(s.slots)]
	slot.result = r
	var err error
	if slot.pending[0], err = s.dev.DownloadLater(graph.Bytes(slot.report[:]), s.report); err != nil {
		return err
	}
	if slot.pending[1], err = s.dev.DownloadLater(graph.Bytes(slot.squares), s.squares); err != nil {
		return err
	}
	s.count++
	return nil
}

// Next returns the result of the oldest step that has not been returned, and whether there is one to return: with flush all that
// are under way, without it only as many as make room for the next Step. A *NonFiniteError says that this step and all after it
// left weights and moments as they were.
func (s *Stepper) Next(flush bool) (StepResult, bool, error) {
	if s.count == 0 || (!flush && s.count < len(s.slots)) {
		return StepResult{}, false, nil
	}
	slot := &s.slots[s.oldest]
	s.oldest = (s.oldest + 1) % len(s.slots)
	s.count--
	for _, p := range slot.pending {
		if err := p.Wait(); err != nil {
			return StepResult{}, false, fmt.Errorf("step %d: %w", slot.result.Step, err)
		}
	}
	r := slot.result
	r.Loss, r.GradNorm = float64(slot.report[0]), float64(slot.report[1])
	if slot.report[2] == 0 {
		return r, true, nil
	}
	e := &NonFiniteError{Step: r.Step, Loss: r.Loss}
	for i, w := range s.params.Config().Weights() {
		if v := float64(slot.squares[i]); math.IsNaN(v) || math.IsInf(v, 0) {
			e.Tensor = w.Name
			break
		}
	}
	return r, false, e
}

// run executes a program on one batch, at the scale that s holds.
func (s *Stepper) run(p *graph.Program, b *dataset.Batch) error {
	for _, in := range [...]struct {
		name string
		data []int32
	}{
		{transformer.InputIDs, b.Inputs}, {transformer.InputLabels, b.Labels},
		{transformer.InputPositions, b.Positions}, {transformer.InputStarts, b.Starts},
	} {
		if err := p.Upload(in.name, graph.Bytes(in.data)); err != nil {
			return err
		}
	}
	if err := p.Upload(transformer.InputScale, graph.Bytes(s.scale[:])); err != nil {
		return err
	}
	return p.Run()
}

// Evaluate returns the sum of the negative log-likelihoods of a batch's labels, in nats, and their number. The batch has the
// shape of a micro-batch; rows that are not wanted carry no labels.
func (s *Stepper) Evaluate(b *dataset.Batch) (nll float64, labels int64, err error) {
	if s.evaluate == nil {
		g, loss := validationGraph(s.params.Config(), s.cfg)
		p, err := g.Compile(s.dev, graph.Options{Bind: s.params.Bindings()}, loss)
		if err != nil {
			return 0, 0, fmt.Errorf("compile the validation: %w", err)
		}
		s.evaluate, s.nll = p, p.Output(loss)
	}
	labels = labelled(b.Labels)
	if labels == 0 {
		return 0, 0, nil
	}
	s.scale[0] = float32(1 / float64(labels))
	if err := s.run(s.evaluate, b); err != nil {
		return 0, 0, err
	}
	var mean [1]float32
	if err := s.dev.Download(graph.Bytes(mean[:]), s.nll); err != nil {
		return 0, 0, err
	}
	return float64(mean[0]) * float64(labels), labels, nil
}

// Moments returns AdamW's moments: for each weight in the model's order its first moment, named "m." and the weight's name, then
// its second, named "v.".
func (s *Stepper) Moments() ([]transformer.Tensor, error) {
	var out []transformer.Tensor
	for i, w := range s.params.Config().Weights() {
		for k, name := range []string{firstName(w.Name), secondName(w.Name)} {
			t := transformer.Tensor{Name: name, Shape: w.Shape, Data: make([]float32, s.moments[2*i+k].Elems())}
			if err := s.dev.Download(graph.Bytes(t.Data), s.moments[2*i+k]); err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// SetMoments puts back what Moments gave. Names and shapes must be those of this model.
func (s *Stepper) SetMoments(tensors []transformer.Tensor) error {
	byName := map[string]transformer.Tensor{}
	for _, t := range tensors {
		byName[t.Name] = t
	}
	for i, w := range s.params.Config().Weights() {
		for k, name := range []string{firstName(w.Name), secondName(w.Name)} {
			t, ok := byName[name]
			if !ok || !slices.Equal(t.Shape, w.Shape) {
				return fmt.Errorf("tensor %s: want shape %v, the file has %v", name, w.Shape, t.Shape)
			}
			if err := s.dev.Upload(s.moments[2*i+k], graph.Bytes(t.Data)); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
		}
	}
	return nil
}

// Profile switches on the timing of kernels; Times returns what they took.
func (s *Stepper) Profile() {
	s.micro.Profile()
	s.update.Profile()
}

// Times returns the time by kind of operator, of the micro-batches' program and of the update.
func (s *Stepper) Times() []graph.KindTime { return append(s.micro.Times(), s.update.Times()...) }

// Close frees everything but the parameters.
func (s *Stepper) Close() {
	for _, p := range []*graph.Program{s.micro, s.update, s.evaluate} {
		if p != nil {
			p.Close()
		}
	}
	for _, m := range s.owned {
		s.dev.Free(m)
	}
	s.owned = nil
}

func labelled(labels []int32) (n int64) {
	for _, l := range labels {
		if l >= 0 {
			n++
		}
	}
	return n
}
