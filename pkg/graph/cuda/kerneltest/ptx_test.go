package kerneltest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"meap/pkg/graph/cuda/gen/source"
)

// TestPTXIsOfTheseSources tells when csrc has changed since gen/ptx was run.
func TestPTXIsOfTheseSources(t *testing.T) {
	const csrc = "../csrc"
	hash, err := source.Hash(os.DirFS(csrc))
	if err != nil {
		t.Fatal(err)
	}
	ptx, err := os.ReadFile(csrc + "/kernels.ptx")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(ptx[:min(len(ptx), 1000)]), "\n// Sources: sha256 "+hash+"\n") {
		t.Error("csrc/kernels.ptx was not generated from the sources beside it; run go generate -tags gpu ./pkg/graph/cuda")
	}
	for _, want := range []string{"\n.version 7.0\n", "\n.target sm_80\n"} {
		if !strings.Contains(string(ptx), want) {
			t.Errorf("the PTX has no line %q", strings.TrimSpace(want))
		}
	}
	header, err := os.ReadFile(csrc + "/args.h")
	if err != nil {
		t.Fatal(err)
	}
	kernels := regexp.MustCompile(`(?m)^    X\((\w+), \w+\)`).FindAllStringSubmatch(string(header), -1)
	if len(kernels) < 50 {
		t.Fatalf("found %d kernels in args.h", len(kernels))
	}
	for _, k := range kernels {
		if !strings.Contains(string(ptx), ".entry meap_"+k[1]+"(") {
			t.Errorf("the PTX has no kernel meap_%s", k[1])
		}
	}
}
