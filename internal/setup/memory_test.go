package setup

import (
	"fmt"
	"strings"
	"testing"

	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

func small() (transformer.Config, trainer.Config) {
	model, err := transformer.Preset("meap-nano")
	if err != nil {
		panic(err)
	}
	t := trainer.DefaultConfig()
	t.Device, t.DType, t.Seq, t.MicroBatch, t.Accumulate = "cpu", trainer.DTypeBF16, 128, 12, 2
	if model.Vocab == 0 {
		model.Vocab = 512
	}
	model.MaxSeq = max(model.MaxSeq, t.Seq)
	return model, t
}

func plan(t *testing.T, model transformer.Config, c trainer.Config) trainer.MemoryPlan {
	t.Helper()
	p, err := trainer.PlanMemory(model, c, Planner(c))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The settings that an error names are the first that fit, among those that give the same steps.
func TestWhatFits(t *testing.T) {
	for _, device := range []string{"cpu", "cuda"} {
		model, c := small()
		c.Device = device
		at := func(rows int, recompute string) int64 {
			c := c
			c.MicroBatch, c.Accumulate, c.Recompute = rows, 24/rows, recompute
			return needs(c, plan(t, model, c))
		}
		for _, x := range []struct {
			have int64
			want string
		}{
			{at(6, trainer.RecomputeNone), "trainer.micro_batch=6 and trainer.accumulate=4 would fit"},
			{at(6, trainer.RecomputeNone) - 1, "trainer.micro_batch=4 and trainer.accumulate=6 would fit"},
			{at(1, trainer.RecomputeNone) - 1, "trainer.recompute=blocks, trainer.micro_batch="},
			{at(1, trainer.RecomputeBlocks) - 1, "one row at a time with trainer.recompute=blocks still takes"},
		} {
			if got := whatFits(model, c, x.have); !strings.HasPrefix(got, x.want) {
				t.Errorf("%s, %d bytes: %s, want %s...", device, x.have, got, x.want)
			}
		}
	}
}

func TestCheckMemory(t *testing.T) {
	if MachineMemory() == 0 {
		t.Skip("this machine's memory is not known")
	}
	model, c := small()
	if err := CheckMemory(model, c, plan(t, model, c)); err != nil {
		t.Errorf("%v", err)
	}
	for plan(t, model, c).Total() <= MachineMemory() {
		c.MicroBatch *= 2
	}
	err := CheckMemory(model, c, plan(t, model, c))
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"this machine has", "would fit", "meap plan"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

// A GPU can be planned for without one: its kernels' memory is known, and activations in bf16 take about half on every device.
func TestPlanForADevice(t *testing.T) {
	model, c := small()
	kinds := func(device, dtype string) map[string]int64 {
		c.Device, c.DType = device, dtype
		out := map[string]int64{}
		for _, m := range plan(t, model, c) {
			out[m.Kind] = m.Bytes
		}
		return out
	}
	full, host, gpu := kinds("cpu", trainer.DTypeFP32), kinds("cpu", trainer.DTypeBF16), kinds("cuda", trainer.DTypeBF16)
	for device, half := range map[string]map[string]int64{"cpu": host, "cuda": gpu} {
		if share := float64(half["activations"]) / float64(full["activations"]); share < 0.45 || share > 0.75 {
			t.Errorf("%s: activations take %.2f of what they take in fp32", device, share)
		}
	}
	if _, has := host["kernels"]; has || gpu["kernels"] < 32<<20 {
		t.Errorf("kernels: %s", fmt.Sprint(host, gpu))
	}
}
