package transformer

import (
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/graph/naive"
)

// eachDevice runs a test on the naive device, which says what is right, and on the cpu device with every instruction set that this
// machine has, as subtests whose names begin with prefix.
func eachDevice(t *testing.T, prefix string, test func(t *testing.T, dev graph.Device)) {
	t.Run(prefix+"naive", func(t *testing.T) { test(t, naive.Device[float32]{}) })
	for _, isa := range []string{"generic", "neon", "avx2", "avx512"} {
		t.Run(prefix+isa, func(t *testing.T) {
			dev, err := cpu.NewDevice(2, isa)
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(dev.Close)
			test(t, dev)
		})
	}
}

func parametersOn(t *testing.T, dev graph.Device, w *Weights) *Parameters {
	t.Helper()
	p, err := NewParameters(dev, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func onNaive(t *testing.T, w *Weights) *Parameters {
	t.Helper()
	return parametersOn(t, naive.Device[float32]{}, w)
}
