// Package kerneltest runs every CUDA kernel on the CPU, by package emu, and compares it with plain loops: odd shapes and alignments,
// outputs poisoned, guard bands around every tensor.
package kerneltest

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meap/pkg/graph/cuda/emu"
)

func TestKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles C++")
	}
	libs, err := emu.Build("")
	if errors.Is(err, emu.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("cpp/*.cpp")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "kernels")
	args := append([]string{"-std=c++17", "-O2", "-Wall", "-I../csrc", "-o", program}, sources...)
	args = append(args, filepath.Join(libs, "libcuda.so.1"), "-Wl,-rpath,"+libs)
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"elementwise", "rows", "embedding", "update", "attention", "cached_attention", "product"} {
		for _, seed := range []string{"", "7"} { // a seed shuffles warps and lanes
			t.Run(name+seed, func(t *testing.T) {
				cmd := exec.Command(program, name)
				if seed != "" {
					cmd.Env = append(cmd.Environ(), "MEAP_FAKE_SEED="+seed)
				}
				if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ok, 1 tests") {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}
