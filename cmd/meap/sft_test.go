package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// untrained writes a tiny model with the byte-level vocabulary.
func untrained(t *testing.T, maxSeq int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	weights := transformer.Init(transformer.Config{
		Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 16, Dim: 32, FFN: 96, Vocab: 320, MaxSeq: maxSeq, RopeTheta: 10000, NormEps: 1e-5}, 5)
	if err := transformer.Save(dir, weights); err != nil {
		t.Fatal(err)
	}
	if err := (tokenizer.ByteLevel{}).Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSFT fine-tunes a tiny model in one part and in two, and looks at what it leaves.
func TestSFT(t *testing.T) {
	model, dir := untrained(t, 256), t.TempDir()
	var text strings.Builder
	for i := range 60 {
		fmt.Fprintf(&text, "{\"messages\": [{\"role\": \"user\", \"content\": \"Say %d.\"}, {\"role\": \"assistant\", \"content\": \"%s\"}]}\n", i, strings.Repeat(fmt.Sprint(i), 1+i%20))
	}
	text.WriteString("{broken\n" + `{"instruction": "x", "output": ""}` + "\n")
	file := filepath.Join(dir, "chats.jsonl")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	command := func(output string, more ...string) []string {
		return append([]string{"sft", "--model", model, "--json", "--threads", "2", "--output", filepath.Join(dir, output),
			"--set", "data.sources=" + file, "--set", "data.validation_fraction=0.1", "--set", "sft.template=plain", "--set", "sft.min_target=10",
			"--set", "trainer.seq=128", "--set", "trainer.micro_batch=2", "--set", "trainer.accumulate=2", "--set", "trainer.steps=8",
			"--set", "trainer.warmup=2", "--set", "trainer.validate_every=4", "--set", "trainer.dtype=fp32"}, more...)
	}
	code, out, stderr := meap(t, command("a")...)
	if code != exitDone {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	straight := losses(t, out)
	for _, want := range []string{"left out 2 of 62 dialogues: a broken line: 1 (first " + file + ":61); an empty answer: 1", file + ":61: a broken line", file + ":62: an empty answer: message 2", "6 held out"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, stderr)
		}
	}
	if len(straight) != 8 || !strings.Contains(out, `"val_loss"`) {
		t.Errorf("8 steps with validation reported\n%s", out)
	}
	parts := losses(t, must(t, command("b", "--set", "trainer.stop_after=3")...))
	parts = append(parts, losses(t, must(t, command("b")...))...)
	split := losses(t, must(t, command("c", "--threads", "1")...))
	for i, loss := range straight {
		if len(parts) != 8 || parts[i] != loss {
			t.Fatalf("losses %v in two parts, %v in one", parts, straight)
		}
		if split[i] != loss {
			t.Fatalf("losses %v on one thread, %v on two", split, straight)
		}
	}
	trained, err := trainer.ModelDir(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := trainer.ReadState(trained)
	if err != nil || state.Epoch < 1 || state.Position < 54*state.Epoch || state.Position >= 54*(state.Epoch+1) {
		t.Errorf("the run stands at example %d in epoch %d of 54 examples (%v)", state.Position, state.Epoch, err)
	}
	var config struct {
		Template string `json:"chat_template"`
		EOS      string `json:"eos_token"`
	}
	raw, err := os.ReadFile(filepath.Join(trained, tokenizer.ConfigFile))
	if err == nil {
		err = json.Unmarshal(raw, &config)
	}
	if err != nil || !strings.Contains(config.Template, "eos_token") || config.EOS != "</s>" {
		t.Errorf("the tokenizer beside the model: %s, %v", raw, err)
	}
	// The run's folder is a model to go on from, with the template that it was trained with.
	if _, _, stderr := meap(t, command("d", "--model", filepath.Join(dir, "a"), "--set", "sft.template=auto", "--set", "trainer.steps=1")...); !strings.Contains(stderr, "template  model") {
		t.Errorf("trained from a run's folder:\n%s", stderr)
	}
	if out := must(t, command("none", "--show", "1")...); !strings.Contains(out, `"learnt":[{"at":`) || !strings.Contains(out, `\u003c/s\u003e"`) {
		t.Errorf("--show: %s", out)
	}
	for _, c := range []struct {
		more []string
		code int
		want string
	}{
		{[]string{"--set", "sft.strict=true"}, exitFailed, file + ":61: a broken line"},
		{[]string{"--set", "sft.template=chatml"}, exitMisused, "sft.template = chatml"},
		{[]string{"--set", "sft.ratio=0.2", "--output", filepath.Join(dir, "a")}, exitMisused, "sft.ratio = 0.2, was 0.1"},
		{[]string{"--set", "sft.rato=0.2"}, exitMisused, "did you mean sft.ratio?"},
		{[]string{"--set", "trainer.seq=512"}, exitMisused, "trainer.seq = 512"},
		{[]string{"--show", "-1"}, exitMisused, "--show"},
		{[]string{"--model", ""}, exitMisused, "--model DIR"},
		{[]string{"--model", filepath.Join(dir, "none")}, exitMisused, "none"},
		{[]string{"--set", "data.sources=" + filepath.Join(dir, "none.jsonl")}, exitMisused, "none.jsonl"},
	} {
		if code, _, stderr := meap(t, append(command("e"), c.more...)...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, want %d and %q in\n%s", c.more, code, c.code, c.want, stderr)
		}
	}
}

// TestSFTOnQuestionsWithDocuments turns the questions of Natural Questions, each with the document that answers it, into dialogues,
// and fine-tunes on them: the loss on the tokens of answers falls, also on dialogues that are held out.
func TestSFTOnQuestionsWithDocuments(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for half a minute")
	}
	source := filepath.Join("..", "..", "..", "shared", "data", "mdqa", "nq-open-oracle.jsonl.gz")
	f, err := os.Open(source)
	if err != nil {
		t.Skipf("needs the questions: %v", err)
	}
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var dialogues strings.Builder
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var r struct {
			Question string
			Answers  []string
			Ctxs     []struct{ Title, Text string }
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil || len(r.Answers) == 0 || len(r.Ctxs) == 0 {
			t.Fatalf("%v in %s", err, lines.Bytes())
		}
		type message map[string]string
		question := fmt.Sprintf("Document [1](Title: %s) %s\n\nQuestion: %s\nAnswer:", r.Ctxs[0].Title, r.Ctxs[0].Text, r.Question)
		line, err := json.Marshal(map[string]any{"messages": []message{{"role": "user", "content": question}, {"role": "assistant", "content": r.Answers[0]}}})
		if err != nil {
			t.Fatal(err)
		}
		dialogues.Write(append(line, '\n'))
	}
	file := filepath.Join(dir, "nq.jsonl")
	if err := os.WriteFile(file, []byte(dialogues.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(dir, "run")
	code, _, stderr := meap(t, "sft", "--model", untrained(t, 1024), "--output", output, "--threads", "2",
		"--set", "data.sources="+file, "--set", "data.validation_fraction=0.02", "--set", "sft.template=plain", "--set", "sft.min_target=10",
		"--set", "trainer.seq=1024", "--set", "trainer.micro_batch=2", "--set", "trainer.accumulate=4", "--set", "trainer.steps=60",
		"--set", "trainer.learning_rate=5e-3", "--set", "trainer.min_learning_rate=5e-4", "--set", "trainer.warmup=5",
		"--set", "trainer.validate_every=15", "--set", "trainer.dtype=fp32", "--set", "trainer.weight_decay=0")
	if code != exitDone {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	m, err := trainer.ReadMetrics(filepath.Join(output, trainer.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	mean := func(from, to int) (sum float64) {
		for _, s := range m.Steps[from:to] {
			sum += s.Loss / float64(to-from)
		}
		return sum
	}
	first, last := mean(0, 5), mean(55, 60)
	held, heldLast := m.Validations[0].Loss, m.Validations[len(m.Validations)-1].Loss
	t.Logf("loss on answers %.2f -> %.2f, held out %.2f -> %.2f\n%s", first, last, held, heldLast, stderr)
	if last > 0.75*first || heldLast >= held {
		t.Errorf("the loss went from %.3f to %.3f, on held-out dialogues from %.3f to %.3f", first, last, held, heldLast)
	}
}
