package trainer

import (
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph/cpu"
)

// What the plan says is what a run takes from its device, to the byte.
func TestPlanIsWhatARunAllocates(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"plain":     func(*Config) {},
		"recompute": func(c *Config) { c.Recompute = RecomputeBlocks },
		"bf16":      func(c *Config) { c.DType = DTypeBF16 },
		"both":      func(c *Config) { c.DType, c.Recompute = DTypeBF16, RecomputeBlocks },
		"one batch": func(c *Config) { c.MicroBatch, c.Accumulate = 3, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			model, cfg := tinyModel, tinyConfig()
			model.Layers = 4
			change(&cfg)
			dev := newSpy(cpuDevice(t, 1))
			b := newBench(t, dev, model, cfg)
			var batch dataset.Batch
			if err := b.source().Collate(1, 0, cfg.MicroBatch, &batch); err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.Evaluate(&batch); err != nil {
				t.Fatal(err)
			}
			plan, err := PlanMemory(model, cfg, cpu.Planner{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := dev.total(), plan.OnDevice(); got != want {
				t.Errorf("a run allocates %d bytes, planned are %d: %+v", got, want, plan)
			}
		})
	}
}
