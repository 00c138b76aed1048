package cpu

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseISA(t *testing.T) {
	for _, name := range []string{"", "auto"} {
		if isa, err := ParseISA(name); err != nil || isa != DetectISA() {
			t.Errorf("ParseISA(%q) = %v, %v", name, isa, err)
		}
	}
	available := AvailableISAs()
	for _, isa := range []ISA{Generic, NEON, AVX2, AVX512, AMX} {
		got, err := ParseISA(isa.String())
		if slices.Contains(available, isa) {
			if err != nil || got != isa {
				t.Errorf("ParseISA(%q) = %v, %v", isa, got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "generic") {
			t.Errorf("ParseISA(%q): error %v, want one that lists what is available", isa, err)
		}
	}
	if _, err := ParseISA("mmx"); err == nil || !strings.Contains(err.Error(), `"mmx"`) {
		t.Errorf("ParseISA(mmx): %v", err)
	}
	p := NewPool(1)
	defer p.Close()
	for isa := Generic; isa <= AMX+1; isa++ {
		if _, err := NewKernels(p, isa); (err == nil) != slices.Contains(available, isa) {
			t.Errorf("kernels of level %v: error %v, and the machine has %v", isa, err, available)
		}
	}
}

func TestDetectFeatures(t *testing.T) {
	s := DetectFeatures().String()
	if !strings.Contains(s, DetectISA().String()) || strings.HasPrefix(s, ",") {
		t.Errorf("features: %q", s)
	}
}

// The committed assembly was made from the C sources as they are now, and no
// source is left out.
func TestAssemblyMatchesSource(t *testing.T) {
	asm, err := filepath.Glob("*.s")
	if err != nil || len(asm) == 0 {
		t.Fatalf("no assembly files: %v", err)
	}
	used := map[string]bool{}
	for _, name := range asm {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources := 0
		for line := range strings.Lines(string(text)) {
			var path, sum string
			if n, _ := fmt.Sscanf(line, "// source %s %s", &path, &sum); n != 2 {
				continue
			}
			sources++
			used[path] = true
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(source)); got != sum {
				t.Errorf("%s is not made from %s as it is now: run go generate ./pkg/graph/cpu", name, path)
			}
		}
		if sources == 0 {
			t.Errorf("%s names no source", name)
		}
	}
	files, err := filepath.Glob("csrc/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !used[filepath.ToSlash(f)] {
			t.Errorf("%s is in no assembly file", f)
		}
	}
}
