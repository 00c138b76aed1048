package main

import (
	"math"
	"path/filepath"
	"strconv"
	"testing"
)

// Storing activations in bf16, which rounds the operands of products too, moves no loss of the first 200 steps by more than 1 %.
func TestBF16Curve(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a small model twice")
	}
	dir := t.TempDir()
	curve := func(dtype string) (curve []float64) {
		out := must(t, "pretrain", "--json", "--output", filepath.Join(dir, dtype), "--set", "trainer.dtype="+dtype, "--device", "cpu",
			"--set", "data.sources=$GOROOT/src/encoding/**/*.go", "--set", "data.cache_dir="+filepath.Join(dir, "cache"), "--set", "tokenizer.path=bytes",
			"--set", "model.preset=meap-nano", "--set", "model.max_seq=128", "--set", "trainer.seq=128", "--set", "trainer.micro_batch=4",
			"--set", "trainer.accumulate=1", "--set", "trainer.steps=200", "--set", "trainer.warmup=20", "--set", "trainer.learning_rate=1e-3")
		for _, digits := range losses(t, out) {
			loss, err := strconv.ParseFloat(digits, 64)
			if err != nil {
				t.Fatal(err)
			}
			curve = append(curve, loss)
		}
		return curve
	}
	full, rounded := curve("fp32"), curve("bf16")
	if len(full) != 200 || len(rounded) != 200 {
		t.Fatalf("%d and %d steps, want 200", len(full), len(rounded))
	}
	if !(full[199] < full[0]/2) {
		t.Errorf("the loss fell from %v to %v only", full[0], full[199])
	}
	worst, same := 0.0, true
	for i := range full {
		off := math.Abs(rounded[i]-full[i]) / full[i]
		worst, same = max(worst, off), same && off == 0
		if !(off <= 0.01) {
			t.Errorf("step %d: loss %v in bf16, %v in fp32", i+1, rounded[i], full[i])
		}
	}
	if same {
		t.Error("bf16 changes nothing")
	}
	t.Logf("bf16 is within %.2f %% of fp32; from %.3f to %.3f", 100*worst, full[0], full[199])
}
