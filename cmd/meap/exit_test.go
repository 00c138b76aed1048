package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/pkg/transformer"
)

// A name that leads nowhere is misuse (2) with every command; what is there and damaged makes it fail (1).
func TestExitCodes(t *testing.T) {
	model, text := needleModel(t, 1)
	dir := t.TempDir()
	nowhere, empty := filepath.Join(dir, "nowhere"), filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	damaged := func(name string) string {
		folder := filepath.Join(t.TempDir(), "model")
		if err := os.CopyFS(folder, os.DirFS(model)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(`{"half`), 0o600); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	sources := func(command ...string) []string {
		return append(command, "--set", "model.preset=meap-nano", "--set", "data.cache_dir="+filepath.Join(dir, "cache"))
	}
	pretrain := sources("pretrain", "--output", filepath.Join(dir, "run"))
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{exitMisused, []string{"generate", "--model", nowhere}, "--model " + nowhere},
		{exitMisused, []string{"generate", "--model", empty}, "--model " + empty},
		{exitMisused, []string{"generate", "--model", text}, "is a file"},
		{exitMisused, []string{"generate", "--model", model, "--no-bos"}, "--prompt: it is empty"},
		{exitMisused, []string{"generate", "--model", model, "--prompt", strings.Repeat("x", 256)}, "--prompt: it has 257 tokens, and the model's context 256"},
		{exitMisused, []string{"eval", "perplexity", "--model", model, "--text", os.DevNull}, "is empty"},
		{exitMisused, []string{"eval", "perplexity", "--model", nowhere}, "--model " + nowhere},
		{exitMisused, []string{"eval", "perplexity", "--model", model, "--text", nowhere}, "--text"},
		{exitMisused, []string{"eval", "perplexity", "--model", model, "--text", empty}, "--text"},
		{exitMisused, []string{"eval", "perplexity", "--model", model, "--text", text, "--seq", "257"}, "--seq 257"},
		{exitMisused, []string{"eval", "perplexity", "--model", model, "--text", text, "--seq", "-1"}, "--seq -1"},
		{exitMisused, []string{"eval", "needle", "--model", nowhere}, "--model " + nowhere},
		{exitMisused, needleArgs(model, text, dir, "--answer", "18"), `--answer: "18" does not occur in the needle`},
		{exitMisused, []string{"sft", "--model", nowhere, "--set", "data.sources=" + text}, "model.path"},
		{exitMisused, []string{"sft", "--model", model, "--set", "data.sources=" + nowhere, "--set", "trainer.seq=64"}, "data.sources"},
		{exitMisused, []string{"plan", "--set", "model.path=" + nowhere}, "model.path"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources="+nowhere), "data.sources"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources="+empty), "data.sources"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources="+dir+"/*.nothing"), "data.sources"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources=$MEAP_NOT_SET/x"), "MEAP_NOT_SET"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources="+text, "--set", "data.validation="+nowhere), "data.validation"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources="+text, "--set", "data.validation="+text), "data.validation"},
		{exitMisused, append(slices.Clone(pretrain), "--set", "data.sources="+text, "--resume", nowhere), "--resume " + nowhere},
		{exitMisused, append(slices.Clone(pretrain), "--set", "tokenizer.path="+nowhere), "tokenizer.path"},
		{exitMisused, sources("data", "prepare", "--set", "data.sources="+nowhere), "data.sources"},
		{exitMisused, sources("data", "inspect", "--set", "data.sources="+nowhere), "data.sources"},
		{exitMisused, []string{"data", "inspect", nowhere}, nowhere},
		{exitMisused, []string{"data", "inspect", text, "--tokenizer", nowhere}, "--tokenizer"},
		{exitMisused, []string{"tokenizer", "encode", "--tokenizer", nowhere}, "--tokenizer"},
		{exitMisused, []string{"tokenizer", "decode", "--tokenizer", nowhere}, "--tokenizer"},
		{exitMisused, []string{"tokenizer", "add-mask", "--tokenizer", nowhere, "--output", dir}, "--tokenizer"},
		{exitMisused, sources("tokenizer", "train", nowhere, "--output", dir), "nowhere"},
		{exitFailed, []string{"data", "inspect", text}, text},
		{exitFailed, append(slices.Clone(pretrain), "--set", "data.sources="+text, "--set", "trainer.seq=64", "--output", text), "output folder " + text},
		{exitFailed, append(slices.Clone(pretrain), "--set", "data.sources="+text, "--set", "trainer.seq=64", "--set", "data.cache_dir="+text), "data.cache_dir"},
		{exitFailed, []string{"eval", "perplexity", "--model", model, "--text", text, "--limit", "1"}, "--limit"},
		{exitFailed, []string{"generate", "--model", damaged("config.json")}, "config.json"},
		{exitFailed, []string{"generate", "--model", damaged("generation_config.json")}, "generation_config.json"},
		{exitFailed, []string{"generate", "--model", damaged("model.safetensors")}, "model.safetensors"},
		{exitFailed, []string{"eval", "needle", "--haystack", text, "--model", damaged("tokenizer.json")}, "tokenizer.json"},
		{exitFailed, []string{"sft", "--set", "data.sources=" + text, "--model", damaged("tokenizer.json")}, "tokenizer.json"},
		{exitFailed, []string{"tokenizer", "encode", "--tokenizer", damaged("tokenizer.json")}, "--tokenizer"},
		{exitFailed, []string{"data", "inspect", text, "--tokenizer", damaged("tokenizer.json")}, "--tokenizer"},
		{exitFailed, append(slices.Clone(pretrain), "--set", "tokenizer.path="+damaged("tokenizer.json")), "tokenizer.path"},
		{exitFailed, []string{"generate", "--model", damaged("checkpoints")}, "checkpoints"},
		{exitFailed, []string{"eval", "perplexity", "--model", damaged("config.yaml")}, "config.yaml"},
	} {
		if code, _, stderr := meap(t, c.args...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("meap %s: exit %d, want %d and %q in\n%s", strings.Join(c.args, " "), code, c.code, c.want, stderr)
		}
	}
}

// What a flag takes is said in words.
func TestFlagTypes(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"doctor --threads two", "--threads two: expected a whole number; see `meap doctor --help`"},
		{"doctor --threads 99999999999999999999", "--threads 99999999999999999999: expected a whole number, not one as large as this"},
		{"generate --temperature hot", "--temperature hot: expected a number"},
		{"generate --seed -1", "--seed -1: expected a whole number that is not negative"},
		{"data inspect --step 1e", "--step 1e: expected a whole number"},
		{"eval needle --exact=maybe", "--exact maybe: expected true or false"},
		{"generate --max-new", "flag needs an argument: --max-new"},
	} {
		code, _, stderr := meap(t, strings.Fields(c.args)...)
		if code != exitMisused || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "strconv") {
			t.Errorf("meap %s: exit %d, want %d and %q in\n%s", c.args, code, exitMisused, c.want, stderr)
		}
	}
}

// Generation ends with every id that generation_config.json names. Of this model's ids all but one are named, so that hardly a text
// has more than a few tokens.
func TestGenerationConfigEnds(t *testing.T) {
	model, _ := needleModel(t, 1)
	generate := func() string {
		return must(t, "generate", "--model", model, "--prompt", "The fox", "--max-new", "40", "--temperature", "1", "--json")
	}
	if out := generate(); !strings.Contains(out, `"reason":"length"`) {
		t.Fatalf("without it: %s", out)
	}
	var ends []string
	for id := range 320 {
		if id != 'x' {
			ends = append(ends, fmt.Sprint(id))
		}
	}
	config := fmt.Sprintf(`{"eos_token_id": [%s]}`, strings.Join(ends, ","))
	if err := os.WriteFile(filepath.Join(model, "generation_config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := generate(); !strings.Contains(out, `"reason":"`+string(transformer.ReasonStop)+`"`) {
		t.Errorf("with it: %s", out)
	}
}
