package setup

import (
	"fmt"

	"meap/pkg/trainer"
)

// CheckMemory refuses a plan that needs more memory than this machine has, which is better known now than after an hour.
func CheckMemory(p trainer.MemoryPlan) error {
	const gib = 1 << 30
	have, need := MachineMemory(), p.Total()
	if have == 0 || need <= have {
		return nil
	}
	return fmt.Errorf("this run needs %.1f GiB of memory and this machine has %.1f: lower trainer.micro_batch (and raise trainer.accumulate), "+
		"set trainer.recompute=blocks, or take a smaller model; `meap plan` shows what takes it", float64(need)/gib, float64(have)/gib)
}
