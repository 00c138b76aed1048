package main

import (
	"encoding/json"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/tokenizer"
	"meap/pkg/transformer"
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
	seconds, mean, bytes, err := kernelCase{name: "add", spec: graph.Add{}, in: []graph.Desc{x, x}, limit: 1}.time(dev, 1)
	if err != nil || seconds <= 0 || mean < seconds || bytes != 3*4*8*16 {
		t.Errorf("adding took %v s, in the mean %v s, for %v bytes, error %v", seconds, mean, bytes, err)
	}
	for _, args := range [][]string{{"--time", "0s"}, {"--cpu-isa", "sse9"}} {
		if code, _, stderr := meap(t, append([]string{"bench", "kernels"}, args...)...); code != exitMisused || !strings.Contains(stderr, args[0]) {
			t.Errorf("bench kernels %v: exit %d, %s", args, code, stderr)
		}
	}
}

func TestBenchDecode(t *testing.T) {
	args := []string{"bench", "decode", "--preset", "meap-nano", "--batch", "2", "--prompt", "5", "--tokens", "3", "--threads", "1", "--device", "cpu", "--json"}
	code, stdout, stderr := meap(t, args...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var r decodeResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	nano, err := transformer.Preset("meap-nano")
	if err != nil {
		t.Fatal(err)
	}
	nano.Vocab = transformer.PadVocab(tokenizer.MinVocabSize)
	weights := nano.Parameters()
	if !nano.TieEmbeddings {
		weights -= int64(nano.Vocab * nano.Dim)
	}
	caches := 2 * 2 * 4 * nano.Layers * nano.KVHeads * nano.HeadDim * 7 // two sequences, keys and values, 5 tokens of the prompt and 2
	if want := float64(4*weights) + float64(caches); r.Bytes != want {
		t.Errorf("a token reads %.0f bytes, want %.0f", r.Bytes, want)
	}
	if r.Share <= 0 || r.TokensPerS <= 0 || r.BestPerS < r.TokensPerS || r.PromptPerS <= 0 {
		t.Errorf("no plausible speeds: %+v", r)
	}
	if code, _, stderr := meap(t, "bench", "decode", "--tokens", "0"); code != exitMisused || !strings.Contains(stderr, "--tokens") {
		t.Errorf("no tokens: exit %d, %s", code, stderr)
	}
}
