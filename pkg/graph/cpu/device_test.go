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

func open(t *testing.T, threads int, isa ISA) *Device {
	d, err := NewDevice(threads, isa.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}
