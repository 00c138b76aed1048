package main

import (
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
)

// Every operator of the benchmark takes the operands it is given, and the device has it.
func TestBenchKernels(t *testing.T) {
	dev, err := cpu.NewDevice(1, "auto")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, k := range kernelCases() {
		if _, err := dev.Kernel(k.spec, k.in, k.spec.Infer(k.in)); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
	}
	x := graph.Of(graph.F32, 8, 16)
	seconds, bytes, err := kernelCase{name: "add", spec: graph.Add{}, in: []graph.Desc{x, x}, limit: 1}.time(dev, 1)
	if err != nil || seconds <= 0 || bytes != 3*4*8*16 {
		t.Errorf("adding took %v s for %v bytes, error %v", seconds, bytes, err)
	}
	for _, args := range [][]string{{"--time", "0s"}, {"--cpu-isa", "sse9"}} {
		if code, _, stderr := meap(t, append([]string{"bench", "kernels"}, args...)...); code != exitMisused || !strings.Contains(stderr, args[0]) {
			t.Errorf("bench kernels %v: exit %d, %s", args, code, stderr)
		}
	}
}
