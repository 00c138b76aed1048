package cpu

import (
	"fmt"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/graphtest"
)

// TestConformance runs every operator against the naive loops, for every instruction set that this machine has.
func TestConformance(t *testing.T) {
	for _, isa := range AvailableISAs() {
		for _, storage := range []graph.Dtype{graph.F32, graph.BF16} {
			t.Run(fmt.Sprint(isa, " ", storage), func(t *testing.T) {
				graphtest.Conformance(t, open(t, 2, isa), graphtest.Options{Seed: 1, Storage: storage})
			})
		}
	}
}

// TestThreads demands the same bits from one, two and three threads; with -short, of the lowest and the highest level.
func TestThreads(t *testing.T) {
	for _, isa := range AvailableISAs() {
		if testing.Short() && isa != Generic && isa != DetectISA() {
			continue
		}
		t.Run(isa.String(), func(t *testing.T) {
			var devs []graph.Device
			for threads := 1; threads <= 3; threads++ {
				devs = append(devs, open(t, threads, isa))
			}
			for _, storage := range []graph.Dtype{graph.F32, graph.BF16} {
				t.Run(storage.String(), func(t *testing.T) {
					graphtest.Same(t, graphtest.Options{Seed: 2, Storage: storage}, devs...)
				})
			}
		})
	}
}

// Sums of products take neither a pass nor a buffer of their own: each product adds to the result of the one before, in its place.
func TestSumsOfProducts(t *testing.T) {
	const n, in, out = 64, 30, 64
	b := graph.NewBuilder(graph.F32)
	sum := b.FloatInput("x", n, out)
	for _, name := range []string{"a", "b", "c"} {
		sum = b.Add(sum, b.Linear(b.FloatInput("x"+name, n, in), b.FloatInput("w"+name, out, in), nil, graph.FP32))
	}
	y := b.RMSNorm(sum, b.FloatInput("norm", out), 1e-5)
	plan, err := b.Plan(Planner{}, graph.Options{}, y)
	if err != nil {
		t.Fatal(err)
	}
	if want := 4 * (n*out + n); plan.Kernels != 3+1 || plan.Arena != want {
		t.Errorf("%d kernels in %d bytes, want 4 in %d, which hold one result and the rows' norms", plan.Kernels, plan.Arena, want)
	}
}

func open(t *testing.T, threads int, isa ISA) *Device {
	d, err := NewDevice(threads, isa.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}
