//go:build gpu && linux

package cuda

import (
	"fmt"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// measured is a Device that asks of every kernel to take what its Planner says.
type measured struct{ *Device }

func (m measured) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	if m.scratch != 0 {
		m.give(m.scratch)
		m.scratch, m.scratchBytes = 0, 0
	}
	before := m.heldBytes
	k, err := m.Device.Kernel(op, in, out)
	own, scratch := Planner{}.KernelBytes(op, in, out)
	if took := m.heldBytes - before - m.scratchBytes; err == nil && (took != own || m.scratchBytes != scratch) {
		return nil, fmt.Errorf("%s on %v takes %d bytes and %d of scratch memory, planned are %d and %d", graph.Kind(op), in, took, m.scratchBytes, own, scratch)
	}
	return k, err
}

// What the plan says is what a training takes of the device, to the byte.
func TestPlanIsWhatATrainingTakes(t *testing.T) {
	for name, change := range map[string]func(*trainer.Config){
		"fp32":           func(*trainer.Config) {},
		"bf16":           func(c *trainer.Config) { c.DType = trainer.DTypeBF16 },
		"bf16 recompute": func(c *trainer.Config) { c.DType, c.Recompute = trainer.DTypeBF16, trainer.RecomputeBlocks },
		"many rows":      func(c *trainer.Config) { c.DType, c.MicroBatch, c.Accumulate = trainer.DTypeBF16, 60, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tinyConfig(trainer.DTypeFP32)
			change(&cfg)
			d := open(t)
			params, err := transformer.NewParameters(d, transformer.Init(tinyModel, 1))
			if err != nil {
				t.Fatal(err)
			}
			defer params.Close()
			s, err := trainer.NewStepper(d, params, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var batch dataset.Batch
			if err := (pattern{}).Collate(1, 0, cfg.MicroBatch, &batch); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Evaluate(&batch); err != nil {
				t.Fatal(err)
			}
			plan, err := trainer.PlanMemory(tinyModel, cfg, Planner{})
			if err != nil {
				t.Fatal(err)
			}
			if have := int64(d.heldBytes); have != plan.OnDevice() {
				t.Errorf("the training holds %d bytes, planned are %d: %+v", have, plan.OnDevice(), plan)
			}
		})
	}
}
