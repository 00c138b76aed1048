package trainer

import (
	"fmt"

	"meap/pkg/graph"
	"meap/pkg/transformer"
)

// MemoryPlan is the memory that a training run's tensors take, by kind. On the CPU kernels' scratch memory, the logits that exist at a
// time and a few blocks of a matrix for each thread, comes on top.
type MemoryPlan []MemoryUse

// MemoryUse is one kind of tensors.
type MemoryUse struct {
	Kind  string `json:"kind"`
	Bytes int64  `json:"bytes"`
	What  string `json:"what"`
}

// inHostMemory is the one kind that is not on the device.
const inHostMemory = "batches"

// Total returns the bytes of all kinds.
func (p MemoryPlan) Total() int64 {
	var n int64
	for _, m := range p {
		n += m.Bytes
	}
	return n
}

// OnDevice returns the bytes of the kinds that are on the device.
func (p MemoryPlan) OnDevice() int64 {
	n := p.Total()
	for _, m := range p {
		if m.Kind == inHostMemory {
			n -= m.Bytes
		}
	}
	return n
}

// PlanMemory returns what a run with this model and configuration will allocate, from the same graphs that it will compile,
// without allocating it. dev stands for the device, nil for one that stores all tensors in fp32.
func PlanMemory(model transformer.Config, cfg Config, dev graph.Planner) (MemoryPlan, error) {
	if err := countable(model, cfg); err != nil {
		return nil, err
	}
	b, roots, err := trainGraph(model, cfg)
	if err != nil {
		return nil, err
	}
	micro, err := b.Plan(dev, cfg.graphOptions(nil), roots...)
	if err != nil {
		return nil, err
	}
	b, roots = updateGraph(model, cfg)
	update, err := b.Plan(dev, graph.Options{}, roots...)
	if err != nil {
		return nil, err
	}
	v, loss := validationGraph(model, cfg)
	validation, err := v.Plan(dev, graph.Options{}, loss)
	if err != nil {
		return nil, err
	}
	weights := 4 * model.Parameters()
	tables := 2 * 4 * int64(model.MaxSeq) * int64(model.HeadDim/2)
	scalars := int64(3 * 4) // the loss, whether the run is halted, and the 1 that differentiation begins with
	other := int64(update.Arena) + tables + scalars
	var kernels, scratch int
	for _, p := range []*graph.Plan{micro, update, validation} {
		other += ownInputs(model, p)
		kernels += p.Own
		scratch = max(scratch, p.Scratch)
	}
	// Inputs, labels, positions and starts [rows, seq] and the text [rows, seq+1] of every micro-batch of a step, and of a
	// validation batch.
	batches := 4 * int64(cfg.Accumulate+1) * int64(cfg.MicroBatch) * int64(5*cfg.Seq+1)
	plan := MemoryPlan{
		{"weights", weights, "fp32"},
		{"gradients", weights, "fp32, summed over the micro-batches of a step"},
		{"optimiser", 2 * weights, "AdamW's two moments, fp32"},
		{"activations", int64(micro.Arena), "of one micro-batch, forward and backward"},
		{"validation", int64(validation.Arena), "activations of a validation batch, forward only"},
		{inHostMemory, batches, "the rows of a step, in host memory"},
		{"other", other, "inputs of the programs, RoPE tables, sums"},
	}
	if dev != nil && kernels+scratch+dev.DeviceBytes() > 0 {
		plan = append(plan, MemoryUse{"kernels", int64(kernels + scratch + dev.DeviceBytes()), "the device's own: scratch memory of kernels, copies under way"})
	}
	return plan, nil
}

// countable refuses a run whose bytes would not fit into an int64. A block stores some ten tensors as wide as its widest, and a token of
// a step's batches takes 20 bytes.
func countable(model transformer.Config, cfg Config) error {
	tokens, widest := float64(cfg.MicroBatch)*float64(cfg.Seq), max(model.Dim, model.FFN, model.Heads*model.HeadDim)
	activations, batches := 4*tokens*float64(widest)*float64(model.Layers), 20*tokens*float64(cfg.Accumulate)
	if bytes := max(activations, batches); bytes > 1<<56 {
		return fmt.Errorf("trainer.micro_batch = %d rows of trainer.seq = %d tokens, trainer.accumulate = %d times, take more memory than any machine has, "+
			"%.1e bytes or more; lower them", cfg.MicroBatch, cfg.Seq, cfg.Accumulate, bytes)
	}
	return nil
}

// ownInputs returns the bytes of the inputs that a program does not share with others.
func ownInputs(model transformer.Config, p *graph.Plan) (n int64) {
	shared := map[string]bool{transformer.InputCos: true, transformer.InputSin: true}
	for _, w := range model.Weights() {
		shared[w.Name] = true
	}
	for name := range stateTensors(model) {
		shared[name] = true
	}
	for i, name := range p.Names {
		if !shared[name] {
			n += int64(p.Inputs[i].Bytes())
		}
	}
	return n
}
