package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"meap/internal/config"
)

// TestRetrievalConfigurations holds configs/retrieval to being twins: one model of at most 5 million parameters, one budget, one
// text; only the masks differ.
func TestRetrievalConfigurations(t *testing.T) {
	load := func(name string) *config.Config {
		cfg := config.Default()
		if err := config.Load(&cfg, config.Options{File: "../../configs/retrieval/" + name + ".yaml", Env: []string{}}); err != nil {
			t.Fatal(err)
		}
		return &cfg
	}
	ntp, meapFirst, warm := load("ntp"), load("meap"), load("meap-warmup")
	if ntp.Masking.Ratio != 0 || meapFirst.Masking.Ratio != 0.15 || meapFirst.Masking.Warmup != 0 || warm.Masking.Ratio != 0.15 || warm.Masking.Warmup == 0 {
		t.Errorf("masks: %+v, %+v, %+v", ntp.Masking, meapFirst.Masking, warm.Masking)
	}
	for _, twin := range []*config.Config{meapFirst, warm} {
		twin.Masking = ntp.Masking
		if !reflect.DeepEqual(twin, ntp) {
			t.Errorf("a twin differs in more than its masks:\n%+v\n%+v", twin, ntp)
		}
	}
	_, stdout, _ := meap(t, "plan", "--config", "../../configs/retrieval/ntp.yaml", "--json")
	var plan struct {
		Parameters int64 `json:"parameters"`
	}
	if err := json.Unmarshal([]byte(stdout), &plan); err != nil || plan.Parameters == 0 || plan.Parameters > 5_000_000 {
		t.Errorf("%d parameters, want at most 5 million (%v)", plan.Parameters, err)
	}
	if ntp.Facts.DocumentBytes != ntp.Trainer.Seq-1 {
		t.Errorf("facts.document_bytes = %d does not make a row of %d tokens one document", ntp.Facts.DocumentBytes, ntp.Trainer.Seq)
	}
}

// TestEvalNeedlePlanted trains a tiny model for two steps on planted facts: the needle test then asks, without further flags, for
// such facts as no training document has, at the length of a training row.
func TestEvalNeedlePlanted(t *testing.T) {
	dir := t.TempDir()
	for i := range 8 {
		var text strings.Builder
		for line := range 200 {
			fmt.Fprintf(&text, "text %d has a line %d\n", i, line)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("text%d.txt", i)), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run, out := filepath.Join(dir, "run"), filepath.Join(dir, "eval")
	must(t, "pretrain", "--config", "../../configs/retrieval/ntp.yaml", "--output", run, "--set", "data.sources="+filepath.Join(dir, "*.txt"),
		"--set", "data.cache_dir="+filepath.Join(dir, "cache"), "--set", "data.validation_fraction=0.3", "--set", "trainer.steps=2",
		"--set", "trainer.validate_every=0")
	stdout := must(t, "eval", "needle", "--model", run, "--output", out, "--depths", "0,50,100", "--samples", "4")
	if !strings.Contains(stdout, "Exact answers") {
		t.Errorf("no exact answers in\n%s", stdout)
	}
	raw, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	stated := regexp.MustCompile(`fact [a-z]{4}\d{3}`).FindAllString(string(raw), -1)
	if r := readResults(t, out); len(r.Needle) != 1 || len(r.Needle[0].Prompts) != 12 || len(stated) == 0 {
		t.Fatalf("%d facts in %+v", len(stated), r)
	} else if got, want := r.Needle[0].Prompts[0].PromptTokens, 192-len("672\n"); got != want {
		// A row holds <s> and 191 bytes, the last of which ends a line in every training document.
		t.Errorf("a prompt of %d tokens, want %d: a row's less the answer and the end of its line", got, want)
	}
	// No name that is asked for is in the rows of training.
	rows := must(t, "data", "inspect", "--config", filepath.Join(run, "config.yaml"), "--rows", "4")
	if !regexp.MustCompile(`fact [a-z]{4}\d{3}`).MatchString(rows) {
		t.Errorf("no facts in the rows of training:\n%s", rows)
	}
	for _, fact := range stated {
		if name := fact[5:9]; strings.Contains(rows, "ask "+name) {
			t.Errorf("%s is asked in training and in the evaluation", name)
		}
	}
	if code, _, stderr := meap(t, "eval", "needle", "--model", run, "--output", out, "--needles", "planted", "--distractors", "999"); code != exitMisused ||
		!strings.Contains(stderr, "--distractors 999") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
