package trainer

import (
	"meap/pkg/graph"
	"meap/pkg/transformer"
)

// MemoryPlan is the memory that a training run's tensors take, by kind.
type MemoryPlan []MemoryUse

// MemoryUse is one kind of tensors.
type MemoryUse struct {
	Kind  string `json:"kind"`
	Bytes int64  `json:"bytes"`
	What  string `json:"what"`
}

// Total returns the bytes of all kinds.
func (p MemoryPlan) Total() int64 {
	var n int64
	for _, m := range p {
		n += m.Bytes
	}
	return n
}

// PlanMemory returns what a run with this model and configuration will allocate, from the same graphs that it will compile,
// without allocating it.
func PlanMemory(model transformer.Config, cfg Config) (MemoryPlan, error) {
	b, roots, err := trainGraph(model, cfg)
	if err != nil {
		return nil, err
	}
	micro, err := b.Plan(cfg.graphOptions(nil), roots...)
	if err != nil {
		return nil, err
	}
	b, roots = updateGraph(model, cfg)
	update, err := b.Plan(graph.Options{}, roots...)
	if err != nil {
		return nil, err
	}
	v := graph.NewBuilder(graph.F32)
	loss, _ := transformer.Build(v, model, cfg.MicroBatch, cfg.Seq, cfg.precision()).Loss()
	validation, err := v.Plan(graph.Options{}, loss)
	if err != nil {
		return nil, err
	}
	weights := 4 * model.Parameters()
	batch := 4 * 4 * cfg.TokensPerStep()
	tables := 2 * 4 * int64(model.MaxSeq) * int64(model.HeadDim/2)
	return MemoryPlan{
		{"weights", weights, "fp32"},
		{"gradients", weights, "fp32, summed over the micro-batches of a step"},
		{"optimiser", 2 * weights, "AdamW's two moments, fp32"},
		{"activations", int64(micro.Arena), "of one micro-batch, forward and backward"},
		{"validation", int64(validation.Arena), "activations of a validation batch, forward only"},
		{"other", int64(update.Arena) + batch + tables, "batches, RoPE tables, sums"},
	}, nil
}
