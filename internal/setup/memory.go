package setup

import (
	"fmt"

	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/graph/cuda"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// Planner returns what stands for the device that Device would open. A run on a GPU can be planned where there is none.
func Planner(t trainer.Config) graph.Planner {
	if TakesGPU(t.Device) {
		return cuda.Planner{}
	}
	return cpu.Planner{}
}

// DeviceFree returns the memory that is free on the device that Device would open, in bytes, 0 where that is not known: a GPU's, or all
// that this machine has.
func DeviceFree(t trainer.Config) int64 {
	if TakesGPU(t.Device) {
		return gpuFree(t.Device)
	}
	return MachineMemory()
}

// CheckMemory refuses a run, which needs the memory of p, on a device that has less; that is better known now than after an hour. The
// error says what would fit.
func CheckMemory(model transformer.Config, t trainer.Config, p trainer.MemoryPlan) error {
	have, need := DeviceFree(t), needs(t, p)
	if have == 0 || need <= have {
		return nil
	}
	where := fmt.Sprintf("this run needs %s of memory and this machine has %s", gib(need), gib(have))
	if TakesGPU(t.Device) {
		where = fmt.Sprintf("this run needs %s of the GPU's memory, of which %s are free", gib(need), gib(have))
	}
	return fmt.Errorf("%s: %s; `meap plan` shows what takes it", where, whatFits(model, t, have))
}

// needs returns what a plan takes of the memory that DeviceFree counts.
func needs(t trainer.Config, p trainer.MemoryPlan) int64 {
	if TakesGPU(t.Device) {
		return p.OnDevice()
	}
	return p.Total()
}

// whatFits names settings that give the same steps in less memory: fewer rows at a time, and if that is not enough activations that are
// computed again.
func whatFits(model transformer.Config, t trainer.Config, have int64) string {
	rows, least := t.RowsPerStep(), int64(0)
	ways := []string{t.Recompute}
	if t.Recompute != trainer.RecomputeBlocks {
		ways = append(ways, trainer.RecomputeBlocks)
	}
	for i, recompute := range ways {
		c, how := t, ""
		if c.Recompute = recompute; i > 0 {
			how = "trainer.recompute=blocks, "
		}
		for c.MicroBatch = t.MicroBatch; c.MicroBatch > 0; c.MicroBatch-- {
			if c.Accumulate = rows / c.MicroBatch; c.Accumulate*c.MicroBatch != rows {
				continue
			}
			p, err := trainer.PlanMemory(model, c, Planner(c))
			if err != nil {
				return err.Error()
			}
			if least = needs(c, p); least <= have {
				return fmt.Sprintf("%strainer.micro_batch=%d and trainer.accumulate=%d would fit, with %s", how, c.MicroBatch, c.Accumulate, gib(least))
			}
		}
	}
	return fmt.Sprintf("one row at a time with trainer.recompute=blocks still takes %s; take a smaller model or a shorter trainer.seq", gib(least))
}

func gib(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }
