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
	header, err := os.ReadFile(csrc + "/args.h")
	if err != nil {
		t.Fatal(err)
	}
	kernels := regexp.MustCompile(`(?m)^    X\((\w+), \w+\)`).FindAllStringSubmatch(string(header), -1)
	if len(kernels) < 50 {
		t.Fatalf("found %d kernels in args.h", len(kernels))
	}
	for _, module := range []struct{ name, version, target string }{{"kernels", "7.0", "sm_80"}, {"hopper", "8.0", "sm_90a"}} {
		ptx, err := os.ReadFile(csrc + "/" + module.name + ".ptx")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(ptx[:min(len(ptx), 1000)]), "\n// Sources: sha256 "+hash+"\n") {
			t.Errorf("csrc/%s.ptx was not generated from the sources beside it; run go generate -tags gpu ./pkg/graph/cuda", module.name)
		}
		for _, want := range []string{"\n.version " + module.version + "\n", "\n.target " + module.target + "\n"} {
			if !strings.Contains(string(ptx), want) {
				t.Errorf("%s.ptx has no line %q", module.name, strings.TrimSpace(want))
			}
		}
		for _, k := range kernels {
			here := strings.HasSuffix(k[1], "_sm90") == (module.name == "hopper")
			if strings.Contains(string(ptx), ".entry meap_"+k[1]+"(") != here {
				t.Errorf("kernel meap_%s in %s.ptx: %v, want %v", k[1], module.name, !here, here)
			}
		}
	}
}
