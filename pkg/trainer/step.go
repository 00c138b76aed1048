package trainer

import (
	"fmt"
	"math"

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

// Stepper runs optimiser steps. It owns the gradients and AdamW's moments, and two compiled programs over them: one adds the
// gradients of a micro-batch, the other clips and updates.
type Stepper struct {
	cfg     Config
	dev     graph.Device
	params  *transformer.Parameters
	moments map[string]graph.Buffer // "m."+name and "v."+name
	owned   []graph.Memory

	micro, update  *graph.Program
	loss           graph.Buffer // of the last micro-batch, already divided by the step's labelled tokens
	norm, squares  graph.Buffer
	batches        []dataset.Batch
	hyper          [3]float32
	scale          [1]float32
	lossHost       [1]float32
	normHost       [1]float32
	squaresHost    []float32
	evaluate       *graph.Program // made when first needed
	evaluateResult graph.Buffer
}

// StepResult is what one optimiser step computed.
type StepResult struct {
	Loss     float64 // mean over the labelled tokens of the step, nats
	GradNorm float64 // before clipping
	Labelled int64   // tokens that counted in the loss
}

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
	inputNorm  = "adamw.norm"
	inputHyper = "adamw.hyper"
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

// trainGraph builds the graph of one micro-batch: forward, backward, and each gradient added to its accumulator.
func trainGraph(model transformer.Config, cfg Config) (b *graph.Builder, loss *graph.Node, roots []*graph.Node, err error) {
	b = graph.NewBuilder(graph.F32)
	m := transformer.Build(b, model, cfg.MicroBatch, cfg.Seq, cfg.precision())
	loss, _ = m.Loss()
	loss, grads, err := b.Grad(loss, m.Params...)
	if err != nil {
		return nil, nil, nil, err
	}
	roots = []*graph.Node{loss}
	for i, p := range m.Params {
		acc := b.Input(gradName(p.Name()), graph.DescOf(p))
		roots = append(roots, b.Accumulate(acc, grads[i]))
	}
	return b, loss, roots, nil
}

// updateGraph builds the graph that clips the accumulated gradients and updates every parameter.
func updateGraph(model transformer.Config, cfg Config) (b *graph.Builder, norm, squares *graph.Node, roots []*graph.Node) {
	b = graph.NewBuilder(graph.F32)
	spec := graph.AdamW{Beta1: cfg.Beta1, Beta2: cfg.Beta2, Epsilon: cfg.Epsilon, WeightDecay: cfg.WeightDecay, Clip: cfg.Clip}
	weights := model.Weights()
	grads := make([]*graph.Node, len(weights))
	for i, w := range weights {
		grads[i] = b.FloatInput(gradName(w.Name), w.Shape...)
	}
	norm = b.GradNorm(grads...)
	squares = b.Aux(norm, 1)
	hyper := b.FloatInput(inputHyper, 3)
	roots = []*graph.Node{norm, squares}
	for i, w := range weights {
		p := b.FloatInput(w.Name, w.Shape...)
		m := b.FloatInput(firstName(w.Name), w.Shape...)
		v := b.FloatInput(secondName(w.Name), w.Shape...)
		roots = append(roots, b.AdamW(spec, p, grads[i], m, v, norm, hyper))
	}
	return b, norm, squares, roots
}

// NewStepper compiles the step for a model's weights on their device. The moments start at zero.
func NewStepper(dev graph.Device, params *transformer.Parameters, cfg Config) (*Stepper, error) {
	s := &Stepper{cfg: cfg, dev: dev, params: params, moments: map[string]graph.Buffer{}, batches: make([]dataset.Batch, cfg.Accumulate)}
	bind := params.Bindings()
	weights := params.Config().Weights()
	for _, w := range weights {
		for _, name := range []string{gradName(w.Name), firstName(w.Name), secondName(w.Name)} {
			d := graph.Of(graph.F32, w.Shape...)
			mem, err := dev.Alloc(name, d.Bytes())
			if err != nil {
				s.Close()
				return nil, fmt.Errorf("allocate the optimiser's state: %w", err)
			}
			s.owned = append(s.owned, mem)
			bind[name] = mem.At(0, d)
			if name != gradName(w.Name) {
				s.moments[name] = bind[name]
			}
		}
	}
	if err := s.compile(bind); err != nil {
		s.Close()
		return nil, fmt.Errorf("compile the training step: %w", err)
	}
	s.squaresHost = make([]float32, len(weights))
	return s, nil
}

func (s *Stepper) compile(bind map[string]graph.Buffer) error {
	b, loss, roots, err := trainGraph(s.params.Config(), s.cfg)
	if err != nil {
		return err
	}
	if s.micro, err = b.Compile(s.dev, s.cfg.graphOptions(bind), roots...); err != nil {
		return err
	}
	s.loss = s.micro.Output(loss)
	b, norm, squares, roots := updateGraph(s.params.Config(), s.cfg)
	if s.update, err = b.Compile(s.dev, graph.Options{Bind: bind}, roots...); err != nil {
		return err
	}
	s.norm, s.squares = s.update.Output(norm), s.update.Output(squares)
	return nil
}

// Step runs one optimiser step at a learning rate. A *NonFiniteError leaves weights and moments as they were.
func (s *Stepper) Step(step int64, source Source, learningRate float64) (StepResult, error) {
	var r StepResult
	for i := range s.batches {
		if err := source.Collate(step, i*s.cfg.MicroBatch, s.cfg.MicroBatch, &s.batches[i]); err != nil {
			return r, fmt.Errorf("step %d: %w", step, err)
		}
		r.Labelled += labelled(s.batches[i].Labels)
	}
	if r.Labelled == 0 {
		return r, fmt.Errorf("step %d: no token of its %d rows has a label; look at them with `meap data inspect`", step, s.cfg.RowsPerStep())
	}
	s.scale[0] = float32(1 / float64(r.Labelled))
	for i := range s.batches {
		loss, err := s.run(s.micro, &s.batches[i], s.loss)
		if err != nil {
			return r, fmt.Errorf("step %d: %w", step, err)
		}
		r.Loss += loss
	}
	if !finite(r.Loss) {
		return r, s.refuse(step, r.Loss)
	}
	s.hyper = [3]float32{
		float32(learningRate),
		float32(1 / (1 - math.Pow(s.cfg.Beta1, float64(step)))),
		float32(1 / (1 - math.Pow(s.cfg.Beta2, float64(step)))),
	}
	if err := s.update.Upload(inputHyper, graph.Bytes(s.hyper[:])); err != nil {
		return r, err
	}
	if err := s.update.Run(); err != nil {
		return r, fmt.Errorf("step %d: update: %w", step, err)
	}
	if err := s.dev.Download(graph.Bytes(s.normHost[:]), s.norm); err != nil {
		return r, err
	}
	r.GradNorm = float64(s.normHost[0])
	if !finite(r.GradNorm) {
		return r, s.refuse(step, r.Loss)
	}
	return r, nil
}

// refuse names the first tensor whose gradient is not finite. AdamW has not touched the weights: it looks at the norm itself.
func (s *Stepper) refuse(step int64, loss float64) error {
	e := &NonFiniteError{Step: step, Loss: loss}
	s.hyper = [3]float32{} // learning rate 0; the update program is run for its sums of squares
	if err := s.update.Upload(inputHyper, graph.Bytes(s.hyper[:])); err != nil {
		return err
	}
	if finite(loss) { // the update has run
		if err := s.dev.Download(graph.Bytes(s.squaresHost), s.squares); err != nil {
			return err
		}
		for i, w := range s.params.Config().Weights() {
			if !finite(float64(s.squaresHost[i])) {
				e.Tensor = w.Name
				break
			}
		}
	}
	return e
}

// run executes a program on one batch and returns its loss output.
func (s *Stepper) run(p *graph.Program, b *dataset.Batch, loss graph.Buffer) (float64, error) {
	for _, in := range [...]struct {
		name string
		data []int32
	}{
		{transformer.InputIDs, b.Inputs}, {transformer.InputLabels, b.Labels},
		{transformer.InputPositions, b.Positions}, {transformer.InputStarts, b.Starts},
	} {
		if err := p.Upload(in.name, graph.Bytes(in.data)); err != nil {
			return 0, err
		}
	}
	if err := p.Upload(transformer.InputScale, graph.Bytes(s.scale[:])); err != nil {
		return 0, err
	}
	if err := p.Run(); err != nil {
		return 0, err
	}
	if err := s.dev.Download(graph.Bytes(s.lossHost[:]), loss); err != nil {
		return 0, err
	}
	return float64(s.lossHost[0]), nil
}

// Evaluate returns the sum of the negative log-likelihoods of a batch's labels, in nats, and their number. The batch has the
// shape of a micro-batch; rows that are not wanted carry no labels.
func (s *Stepper) Evaluate(b *dataset.Batch) (nll float64, labels int64, err error) {
	if s.evaluate == nil {
		g := graph.NewBuilder(graph.F32)
		loss, _ := transformer.Build(g, s.params.Config(), s.cfg.MicroBatch, s.cfg.Seq, s.cfg.precision()).Loss()
		p, err := g.Compile(s.dev, graph.Options{Bind: s.params.Bindings()}, loss)
		if err != nil {
			return 0, 0, fmt.Errorf("compile the validation: %w", err)
		}
		s.evaluate, s.evaluateResult = p, p.Output(loss)
	}
	labels = labelled(b.Labels)
	if labels == 0 {
		return 0, 0, nil
	}
	s.scale[0] = float32(1 / float64(labels))
	mean, err := s.run(s.evaluate, b, s.evaluateResult)
	return mean * float64(labels), labels, err
}

// Moments returns AdamW's moments by name ("m." and "v." and the parameter's name), each of its parameter's shape.
func (s *Stepper) Moments() map[string]graph.Buffer { return s.moments }

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

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
