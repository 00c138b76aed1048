package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meap/pkg/tokenizer"
)

// piped runs the program with standard input.
func piped(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestTokenizerCommands(t *testing.T) {
	dir := t.TempDir()
	source, tok := filepath.Join(dir, "text.txt"), filepath.Join(dir, "tok")
	if err := os.WriteFile(source, []byte(strings.Repeat("the cat and the hat\nthat they had\n", 40)), 0o644); err != nil {
		t.Fatal(err)
	}
	train := func(out, threads string) []byte {
		t.Helper()
		answer, err := piped(t, "", "tokenizer", "train", source, "--set", "data.cache_dir="+filepath.Join(dir, "cache"), "--vocab-size", "270",
			"--threads", threads, "--json", "-o", out)
		if err != nil {
			t.Fatal(err)
		}
		var told struct{ Vocab, BOS, EOS, Mask int }
		if err := json.Unmarshal([]byte(answer), &told); err != nil || told != (struct{ Vocab, BOS, EOS, Mask int }{270, 256, 257, 258}) {
			t.Errorf("%s: %v", answer, err)
		}
		file, err := os.ReadFile(filepath.Join(out, "tokenizer.json"))
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	if !bytes.Equal(train(tok, "1"), train(filepath.Join(dir, "again"), "3")) {
		t.Error("the vocabulary depends on --threads")
	}

	const text = "the cat\x00 [MASK] é\n\n"
	ids, err := piped(t, text, "tokenizer", "encode", "--tokenizer", tok, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var encoded tokens
	if err := json.Unmarshal([]byte(ids), &encoded); err != nil || len(encoded.IDs) == 0 || len(encoded.IDs) >= len(text) {
		t.Fatalf("%s: %v", ids, err)
	}
	for _, in := range []string{ids, strings.TrimSuffix(strings.TrimPrefix(ids, `{"ids":`), "}\n")} {
		if got, err := piped(t, in, "tokenizer", "decode", "--tokenizer", tok); err != nil || got != text {
			t.Errorf("%s came back as %q, %v", in, got, err)
		}
	}
	if got, err := piped(t, "", "tokenizer", "encode", "--tokenizer", "bytes", "--json"); err != nil || got != "{\"ids\":[]}\n" {
		t.Errorf("an empty text: %q, %v", got, err)
	}
	if got, err := piped(t, "[104,105]", "tokenizer", "decode", "--tokenizer", "bytes", "--json"); err != nil || got != "{\"text\":\"hi\"}\n" {
		t.Errorf("%q, %v", got, err)
	}

	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"encode"}, "--tokenizer"},
		{"", []string{"encode", "--tokenizer", filepath.Join(dir, "absent")}, "absent"},
		{"[1, 400]", []string{"decode", "--tokenizer", tok}, "ids[1] = 400"},
		{"hello", []string{"decode", "--tokenizer", tok}, `{"ids": [...]}`},
		{"", []string{"train", source}, "--output"},
		{"", []string{"train", source, "-o", tok, "--vocab-size", "100"}, "--vocab-size"},
		{"", []string{"add-mask", "--tokenizer", tok}, "--output"},
	} {
		if _, err := piped(t, c.stdin, append([]string{"tokenizer"}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("meap tokenizer %s: %v", strings.Join(c.args, " "), err)
		}
	}
}

func TestAddMaskCommand(t *testing.T) {
	dir := t.TempDir()
	file := `{"added_tokens":[],"pre_tokenizer":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":25},"merges":[]}}`
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "masked")
	if _, err := piped(t, "", "tokenizer", "add-mask", "--tokenizer", dir, "-o", out); err != nil {
		t.Fatal(err)
	}
	if ids, err := piped(t, "a[MASK]", "tokenizer", "encode", "--tokenizer", out, "--json"); err != nil || ids != "{\"ids\":[0,26]}\n" {
		t.Errorf("%s, %v", ids, err)
	}
	if _, err := piped(t, "", "tokenizer", "add-mask", "--tokenizer", dir, "--eos", "<|endoftext|>", "-o", out); err != nil {
		t.Fatal(err)
	}
	if tok, err := tokenizer.Load(out); err != nil || tok.Mask() != 26 || tok.EOS() != 27 {
		t.Errorf("%v, %v", tok, err)
	}
	if _, err := piped(t, "", "tokenizer", "add-mask", "--tokenizer", out, "--eos", "</s>", "-o", out); err == nil || !strings.Contains(err.Error(), "<|endoftext|>") {
		t.Error(err)
	}
}
