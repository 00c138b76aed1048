//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A reader that goes away, as head does, interrupts training: what is done is saved.
func TestReaderGoesAway(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.txt")
	if err := os.WriteFile(text, bytes.Repeat([]byte("All work and no play. "), 400), 0o644); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var stderr bytes.Buffer
	code := make(chan int)
	go func() {
		code <- run(context.Background(), []string{"pretrain", "--json", "--threads", "1", "--output", filepath.Join(dir, "run"),
			"--set", "data.sources=" + text, "--set", "data.cache_dir=" + filepath.Join(dir, "cache"), "--set", "data.validation_fraction=0",
			"--set", "model.layers=1", "--set", "model.heads=2", "--set", "model.dim=16", "--set", "model.ffn=16",
			"--set", "trainer.seq=16", "--set", "trainer.micro_batch=1", "--set", "trainer.accumulate=1", "--set", "trainer.dtype=fp32",
			"--set", "trainer.steps=1_000_000_000", "--set", "trainer.checkpoint_every=0"}, w, &stderr)
	}()
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || !strings.Contains(line, `"step":1,`) {
		t.Errorf("the first line is %q, %v", line, err)
	}
	r.Close()
	if got := <-code; got != exitInterrupted {
		t.Errorf("exit %d, want %d\n%s", got, exitInterrupted, &stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "run", "checkpoints", "latest")); err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
}
