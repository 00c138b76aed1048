package emu

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmulator runs selftest/main.cpp: kernels whose results are known, and ones that do what they must not.
func TestEmulator(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles C++")
	}
	libs, err := Build("selftest")
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "selftest")
	cmd := exec.Command(compiler(), "-std=c++17", "-O1", "-Iselftest", "-o", program, "selftest/main.cpp",
		filepath.Join(libs, "libcuda.so.1"), filepath.Join(libs, "libcublasLt.so.12"), "-Wl,-rpath,"+libs)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(program).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ok, ") {
		t.Fatalf("%v\n%s", err, out)
	}
}
