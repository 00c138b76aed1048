package setup

import (
	"fmt"

	"meap/pkg/trainer"
)

// CheckMemory refuses a run, which needs the memory of p, on a machine that has less; that is better known now than after an hour. A
// run on a GPU is not refused here: its plan counts activations as the CPU stores them, and the GPU says itself what does not fit.
func CheckMemory(t trainer.Config, p trainer.MemoryPlan) error {
	const gib = 1 << 30
	have, need := MachineMemory(), p.Total()
	if have == 0 || need <= have || takesGPU(t.Device) {
		return nil
	}
	return fmt.Errorf("this run needs %.1f GiB of memory and this machine has %.1f: lower trainer.micro_batch (and raise trainer.accumulate), "+
		"set trainer.recompute=blocks, or take a smaller model; `meap plan` shows what takes it", float64(need)/gib, float64(have)/gib)
}
