package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meap/pkg/tokenizer"
	"meap/pkg/transformer"
)

// needleModel writes a tiny untrained model's folder, and a text beside it.
func needleModel(t *testing.T, seed uint64) (model, text string) {
	t.Helper()
	dir := t.TempDir()
	model, text = filepath.Join(dir, "model"), filepath.Join(dir, "text.txt")
	c := transformer.Config{Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 8, Dim: 16, FFN: 32, Vocab: 320, MaxSeq: 256, RopeTheta: 10000, NormEps: 1e-5}
	if err := transformer.Save(model, transformer.Init(c, seed)); err != nil {
		t.Fatal(err)
	}
	if err := (tokenizer.ByteLevel{}).Save(model); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(text, []byte(strings.Repeat("The fox jumps over the dog. It sleeps. ", 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	return model, text
}

// needleArgs are a short needle's, which fits into the tiny model.
func needleArgs(model, text, output string, more ...string) []string {
	return append([]string{"eval", "needle", "--model", model, "--haystack", text, "--output", output, "--needle", "The code is 17.",
		"--question", "The code?", "--answer", "17", "--max-new", "4", "--exact"}, more...)
}

func readResults(t *testing.T, dir string) (r struct {
	Models []struct {
		Name        string
		MaxSeq      int    `json:"max_seq"`
		RopeScaling string `json:"rope_scaling"`
	}
	Needle []struct {
		Model   string
		Mean    map[string]float64
		Cells   []map[string]float64
		Prompts []struct {
			Answer       string
			PromptTokens int `json:"prompt_tokens"`
		}
	}
}) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEvalNeedleMisuse(t *testing.T) {
	model, text := needleModel(t, 1)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--model", model}, "given twice"},
		{[]string{"--metric", "bleu"}, "--metric bleu"},
		{[]string{"--depths", "0:100"}, "--depths 0:100"},
		{[]string{"--depths", "half"}, "--depths half"},
		{[]string{"--lengths", "1.5"}, "--lengths 1.5"},
		{[]string{"--lengths", "100:200:0"}, "--lengths"},
		{[]string{"--depth-spacing", "log"}, "--depth-spacing"},
		{[]string{"--needles", text}, "either --needles, or"},
		{[]string{"--rope-scaling", "yarn"}, "--rope-scaling"},
		{[]string{"--rope-scaling", "longrope:4"}, "longrope"},
		{[]string{"--template", "{question}"}, "--template"},
		{[]string{"--question", ""}, "give all three"},
		{[]string{"--lengths", "300"}, "the longest length that fits is"},
		{[]string{"--chat", "no-such"}, "--chat"},
		{[]string{"--haystack", "no-such"}, "--haystack"},
		{[]string{"--depths", "101"}, "--depths 101"},
	} {
		if code, _, stderr := meap(t, needleArgs(model, text, t.TempDir(), c.args...)...); code != exitMisused || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, want %d and %q in\n%s", c.args, code, exitMisused, c.want, stderr)
		}
	}
}

// Two models side by side, each with scaled positions, on exact lengths beyond what they were made for.
func TestEvalNeedleSideBySide(t *testing.T) {
	a, text := needleModel(t, 1)
	b, _ := needleModel(t, 2)
	out := t.TempDir()
	stdout := must(t, needleArgs(a, text, out, "--model", b, "--lengths", "200,900", "--depths", "0,50,100", "--rope-scaling", "linear:4", "--batch", "2")...)
	for _, want := range []string{a + "\n", b + "\n", b + " minus " + a + "\n", "keyword recall"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	r := readResults(t, out)
	if len(r.Models) != 2 || len(r.Needle) != 2 || r.Models[1].Name != b || r.Models[0].RopeScaling != "linear:4" || r.Models[0].MaxSeq != 1024 {
		t.Fatalf("%+v", r)
	}
	if r.Needle[0].Mean["difference"] == r.Needle[1].Mean["difference"] {
		t.Error("two models have the same scores")
	}
	for _, n := range r.Needle {
		if len(n.Cells) != 6 || len(n.Prompts) != 6 {
			t.Fatalf("%s: %d cells, %d prompts", n.Model, len(n.Cells), len(n.Prompts))
		}
		for i, p := range n.Prompts {
			if want := []int{200, 900}[i/3]; p.PromptTokens != want || len(p.Answer) == 0 {
				t.Errorf("%s, prompt %d: %d tokens, want %d; answer %q", n.Model, i, p.PromptTokens, want, p.Answer)
			}
		}
	}
}

// An interrupted evaluation keeps what it has, and the same command ends with the results of one that was never interrupted.
func TestEvalNeedleContinues(t *testing.T) {
	model, text := needleModel(t, 1)
	whole, parts := t.TempDir(), t.TempDir()
	grid := []string{"--lengths", "150:250:6", "--depths", "0:100:20", "--batch", "1"}
	must(t, needleArgs(model, text, whole, grid...)...)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			files, _ := filepath.Glob(filepath.Join(parts, "needle-*.partial.jsonl"))
			for _, f := range files {
				if raw, err := os.ReadFile(f); err == nil && bytes.Count(raw, []byte("\n")) > 5 {
					cancel()
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, needleArgs(model, text, parts, grid...), &stdout, &stderr); code != exitInterrupted || !strings.Contains(stderr.String(), "the same command continues") {
		t.Fatalf("interrupted: exit %d\n%s", code, &stderr)
	}
	if _, err := os.Stat(filepath.Join(parts, "results.json")); err == nil {
		t.Error("there is a report after five prompts")
	}
	// With other settings it starts anew, and what was there stays.
	if _, _, stderr := meap(t, needleArgs(model, text, parts, append(grid, "--limit", "2", "--max-new", "3")...)...); strings.Contains(stderr, "done already") {
		t.Errorf("another --max-new continued:\n%s", stderr)
	}
	code, _, second := meap(t, needleArgs(model, text, parts, grid...)...)
	if code != exitDone || !strings.Contains(second, "prompts are done already") {
		t.Fatalf("continued: exit %d\n%s", code, second)
	}
	for _, name := range []string{"results.json", "needle.png", "report.html"} {
		a, err := os.ReadFile(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(parts, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from that of an evaluation that was not interrupted", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(parts, "*.partial.jsonl")); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}

// A chat template and a file of needles, several in each cell.
func TestEvalNeedleChat(t *testing.T) {
	model, text := needleModel(t, 1)
	cases := filepath.Join(t.TempDir(), "needles.jsonl")
	if err := os.WriteFile(cases, []byte(`{"needle": "A is 12.", "question": "A?", "answer": "12"}
{"needles": ["B is 34.", "C is 56."], "question": "B and C?", "answer": "34 and 56", "keywords": ["34", "56"]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	must(t, "eval", "needle", "--model", model, "--haystack", text, "--output", out, "--needles", cases, "--samples", "2", "--chat", "plain",
		"--lengths", "180", "--exact", "--depths", "0:100:3", "--depth-spacing", "sigmoid", "--max-new", "5", "--boundary", "token", "--seed", "3")
	r := readResults(t, out)
	if len(r.Needle[0].Cells) != 3 || len(r.Needle[0].Prompts) != 6 {
		t.Fatalf("%d cells, %d prompts", len(r.Needle[0].Cells), len(r.Needle[0].Prompts))
	}
	for _, p := range r.Needle[0].Prompts {
		if p.PromptTokens != 180 {
			t.Errorf("a prompt of %d tokens", p.PromptTokens)
		}
	}
}
