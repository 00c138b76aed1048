//go:build gpu && linux

package cuda

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/cuda/emu"
	"meap/pkg/graph/graphtest"
)

// The tests run on the emulated GPU (package emu), with MEAP_TEST_GPU=1 on the first real one.
var (
	real   = os.Getenv("MEAP_TEST_GPU") == "1"
	noGPU  string // why there is none to test on
	libs   string // of the emulated GPU
	emuErr error
)

func TestMain(m *testing.M) {
	if !real {
		libs, emuErr = emu.Build("")
		switch {
		case errors.Is(emuErr, emu.ErrUnavailable):
			noGPU = emuErr.Error()
		case emuErr != nil:
			fmt.Fprintln(os.Stderr, emuErr)
			os.Exit(1)
		default:
			os.Setenv(LibrariesVariable, libs)
		}
	}
	os.Exit(m.Run())
}

// needGPU skips a test where there is nothing to run it on.
func needGPU(t testing.TB) {
	t.Helper()
	if noGPU != "" {
		t.Skip("not run: " + noGPU)
	}
}

// open gives a device that must be left empty and must not warn.
func open(t testing.TB) *Device {
	t.Helper()
	d := openWith(t, Options{Warn: func(text string) {
		if real && strings.Contains(text, "has no algorithm") { // that is the library's affair; the results must be right anyhow
			t.Logf("warning: %s", text)
			return
		}
		t.Errorf("warning: %s", text)
	}})
	t.Cleanup(func() {
		if n := d.HeldBytes(); n != 0 {
			t.Errorf("%d bytes are not given back: %v", n, d.held)
		}
	})
	return d
}

func openWith(t testing.TB, o Options) *Device {
	t.Helper()
	needGPU(t)
	d, err := Open(0, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// together are the operators whose products cuBLASLt may compute in another way for another number of rows, or where the result takes the
// place of what is added: a small product in bf16 was then rounded before it was added, too.
func together() map[string]string {
	if !real {
		return nil // the emulated one has one way
	}
	out := map[string]string{}
	for _, s := range []graph.Spec{graph.Linear{}, graph.LinearDX{}, graph.LinearCrossEntropy{}, graph.LinearCrossEntropyGrad{}} {
		out[graph.Kind(s)] = "cuBLASLt chooses by shape"
	}
	return out
}

func TestConformance(t *testing.T) {
	graphtest.Conformance(t, measured{open(t)}, graphtest.Options{Seed: 3, Together: together()})
}

// Activations in bf16: what a training in bf16 runs.
func TestConformanceStored(t *testing.T) {
	graphtest.Conformance(t, measured{open(t)}, graphtest.Options{Seed: 4, Together: together(), Storage: graph.BF16,
		Skip: map[string]string{graph.Kind(graph.CachedAttention{}): "caches are fp32"}})
}

// The kernels that only compute capability 9.0 has; on a real GPU of that, every test runs them.
func TestConformanceHopper(t *testing.T) {
	needEmulated(t)
	t.Setenv("MEAP_FAKE_CC", "90")
	d := open(t)
	if f, err := d.attentionFamily(graph.BF16, 64); err != nil || f.suffix != "_bf16_64_sm90" {
		t.Fatalf("attention by %q, %v", f.suffix, err)
	}
	graphtest.Conformance(t, d, graphtest.Options{Seed: 6, Together: together(), Storage: graph.BF16,
		Skip: graphtest.Skipping("no kernel of its own", graph.Attention{}, graph.AttentionGrad{})})
}
