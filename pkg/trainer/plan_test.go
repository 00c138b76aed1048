package trainer

import (
	"strings"
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

// At the upper ends of the settings' ranges bytes no longer fit into an int64, which is said instead of a wrong number.
func TestPlanDoesNotOverflow(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.MicroBatch, c.Seq = maxRows, maxSeq },
		func(c *Config) { c.MicroBatch, c.Accumulate, c.Seq = 1<<10, maxRows, maxSeq },
	} {
		model, cfg := tinyModel, tinyConfig()
		model.MaxSeq, model.FFN = maxSeq, 1<<16
		change(&cfg)
		if plan, err := PlanMemory(model, cfg, nil); err == nil || !strings.Contains(err.Error(), "trainer.micro_batch") {
			t.Errorf("%d x %d rows of %d: %+v, %v", cfg.MicroBatch, cfg.Accumulate, cfg.Seq, plan, err)
		}
	}
	model, cfg := tinyModel, tinyConfig()
	model.MaxSeq, cfg.Seq, cfg.MicroBatch = maxSeq, maxSeq, 1<<10
	plan, err := PlanMemory(model, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range plan {
		if m.Bytes < 0 || m.Bytes > 1<<56 {
			t.Errorf("%s: %d bytes", m.Kind, m.Bytes)
		}
	}
}
