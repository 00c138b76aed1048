package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meap/internal/config"
	"meap/pkg/trainer"
)

// meap runs the program in this process.
func meap(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

// must is meap for commands that have to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := meap(t, args...)
	if code != exitDone {
		t.Fatalf("meap %s: exit %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

func TestMisuse(t *testing.T) {
	const quickstart = "../../configs/quickstart.yaml"
	t.Setenv("MEAP_DATA_CACHE_DIR", t.TempDir()) // some mistakes are found only after the vocabulary has been learnt
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pretran"}, "did you mean pretrain"},
		{[]string{"eval"}, "needs a subcommand"},
		{[]string{"eval", "nedle"}, "did you mean needle"},
		{[]string{"pretrain"}, "needs --config"},
		{[]string{"pretrain", "--confg", "x"}, "unknown flag: --confg"},
		{[]string{"pretrain", "extra", "--config", quickstart}, "extra"},
		{[]string{"pretrain", "--config", "no-such.yaml"}, "no-such.yaml"},
		{[]string{"pretrain", "--config", quickstart, "--set", "trainer.lerning_rate=1"}, "trainer.learning_rate"},
		{[]string{"pretrain", "--config", quickstart, "--set", "trainer.learning_rate=2"}, "trainer.learning_rate = 2"},
		{[]string{"pretrain", "--config", quickstart, "--set", "trainer.steps=0"}, "trainer.steps = 0"},
		{[]string{"pretrain", "--config", quickstart, "--set", "trainer.steps=many"}, "trainer.steps"},
		{[]string{"pretrain", "--config", quickstart, "--set", "trainer.seq=513"}, "trainer.seq = 513"},
		{[]string{"pretrain", "--config", quickstart, "--set", "masking.ratio=0.6"}, "masking.ratio = 0.6"},
		{[]string{"pretrain", "--config", quickstart, "--set", "data.validation_fraction=2"}, "data.validation_fraction = 2"},
		{[]string{"pretrain", "--config", quickstart, "--set", "model.preset=meap-7b"}, "model.preset"},
		{[]string{"pretrain", "--config", quickstart, "--set", "model.vocab=10"}, "model.vocab = 10"},
		{[]string{"pretrain", "--config", quickstart, "--set", "model.kv_heads=3"}, "model.kv_heads = 3"},
		{[]string{"pretrain", "--config", quickstart, "--device", "tpu"}, "trainer.device"},
		{[]string{"pretrain", "--config", quickstart, "--device", "cuda"}, "trainer.device"},
		{[]string{"pretrain", "--config", quickstart, "--set", "trainer.cpu_isa=sse9"}, "trainer.cpu_isa"},
		{[]string{"doctor", "--cpu-isa", "sse9"}, "--cpu-isa"},
		{[]string{"plan", "--threads", "-1"}, "--threads"},
		{[]string{"eval", "needle"}, "--model"},
		{[]string{"generate"}, "--model"},
		{[]string{"bench", "train", "--steps", "0"}, "--steps"},
	} {
		code, _, stderr := meap(t, c.args...)
		if code != exitMisused || !strings.Contains(stderr, c.want) {
			t.Errorf("meap %s: exit %d, want %d and %q in\n%s", strings.Join(c.args, " "), code, exitMisused, c.want, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"pretrain", "--help"}, {"eval", "needle", "--help"}, {"plan", "--help"}} {
		if out := must(t, args...); !strings.Contains(out, "Examples:") {
			t.Errorf("meap %s shows no examples:\n%s", strings.Join(args, " "), out)
		}
	}
}

// TestShippedConfigurations reads every YAML file of the project as pretrain would.
func TestShippedConfigurations(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../../configs/*.yaml", "../../configs/*/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no configurations %s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	for _, f := range files {
		cfg := config.Default()
		if err := config.Load(&cfg, config.Options{File: f, Env: []string{}}); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "#") {
			t.Errorf("%s does not begin with a comment that says what it is for", f)
		}
	}
}

// TestPaperConfigurations compares what configs/paper come to with the reference's runs.
func TestPaperConfigurations(t *testing.T) {
	for name, want := range map[string]struct {
		parameters, steps, warmup int64
		micro                     int
	}{
		"0.1b": {122_400_000, 1907, 190, 16}, "0.3b": {324_100_000, 4768, 476, 16},
		"0.5b": {481_000_000, 10000, 1000, 8}, "1b": {1_175_800_000, 190000, 19000, 8},
	} {
		file := "../../configs/paper/" + name + ".yaml"
		cfg := config.Default()
		if err := config.Load(&cfg, config.Options{File: file, Env: []string{}}); err != nil {
			t.Fatal(err)
		}
		tr := cfg.Trainer
		if tr.Steps != want.steps || tr.Warmup != want.warmup || tr.MicroBatch != want.micro || tr.RowsPerStep() != 256 || tr.Seq != 4096 ||
			tr.LearningRate != 4e-4 || tr.MinLearningRate != 4e-5 || tr.WeightDecay != 0.05 || tr.Beta1 != 0.9 || tr.Beta2 != 0.95 ||
			tr.Epsilon != 1e-8 || tr.Clip != 1 || tr.DType != trainer.DTypeBF16 || tr.Seed != 3407 {
			t.Errorf("%s: %+v", name, tr)
		}
		if cfg.Masking.Ratio != 0.15 || cfg.Data.DocumentMask {
			t.Errorf("%s: masking %+v, data.document_mask %v", name, cfg.Masking, cfg.Data.DocumentMask)
		}
		// The machine may have too little memory, which plan says with exit code 1 after the numbers.
		_, stdout, stderr := meap(t, "plan", "--config", file, "--json")
		var plan struct {
			Parameters    int64 `json:"parameters"`
			TokensPerStep int64 `json:"tokens_per_step"`
		}
		if err := json.Unmarshal([]byte(stdout), &plan); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, stderr)
		}
		if off := plan.Parameters - want.parameters; off < -50_000 || off > 50_000 || plan.TokensPerStep != 256*4096 {
			t.Errorf("%s: %d parameters, %d tokens per step; want %d and %d", name, plan.Parameters, plan.TokensPerStep, want.parameters, 256*4096)
		}
	}
}

// A plan speaks of a GPU's memory where the run would be on one.
func TestPlanSaysWhoseMemory(t *testing.T) {
	for device, gpu := range map[string]bool{"cpu": false, "cuda": true} {
		args := []string{"plan", "--preset", "meap-nano", "--device", device}
		text := must(t, args...)
		var plan struct {
			GPU bool `json:"gpu"`
		}
		if err := json.Unmarshal([]byte(must(t, append(args, "--json")...)), &plan); err != nil {
			t.Fatal(err)
		}
		if plan.GPU != gpu || strings.Contains(text, "GPU") != gpu || strings.Contains(text, "this machine has") == gpu {
			t.Errorf("--device %s: gpu %v\n%s", device, plan.GPU, text)
		}
	}
}

// TestEndToEnd goes through the life of a tiny model: data, training in two parts, evaluation, generation.
func TestEndToEnd(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 400)), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := []string{
		"--set", "data.sources=" + text, "--set", "data.cache_dir=" + filepath.Join(dir, "cache"), "--set", "data.validation_fraction=0.3",
		"--set", "model.layers=2", "--set", "model.heads=2", "--set", "model.dim=32", "--set", "model.ffn=64", "--set", "model.max_seq=512",
		"--set", "trainer.seq=32", "--set", "trainer.micro_batch=2", "--set", "trainer.accumulate=2", "--set", "trainer.steps=6",
		"--set", "trainer.warmup=2", "--set", "trainer.validate_every=3", "--set", "trainer.dtype=fp32", "--threads", "2",
	}
	command := func(words ...string) []string { return append(words, settings...) }

	straight := losses(t, must(t, append(command("pretrain", "--json"), "--output", filepath.Join(dir, "a"))...))
	if len(straight) != 6 {
		t.Fatalf("%d steps were reported, want 6", len(straight))
	}
	first := losses(t, must(t, append(command("pretrain", "--json", "--set", "trainer.stop_after=3"), "--output", filepath.Join(dir, "b"))...))
	rest := losses(t, must(t, append(command("pretrain", "--json"), "--output", filepath.Join(dir, "b"))...))
	for i, got := range append(first, rest...) {
		if got != straight[i] {
			t.Errorf("step %d: loss %s in two parts, %s in one", i+1, got, straight[i])
		}
	}
	if code, _, stderr := meap(t, append(command("pretrain", "--resume", "off"), "--output", filepath.Join(dir, "b"))...); code != exitMisused || !strings.Contains(stderr, "already holds a run") {
		t.Errorf("--resume off on a run: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := meap(t, append(command("pretrain", "--set", "trainer.seed=9"), "--output", filepath.Join(dir, "b"))...); code != exitMisused || !strings.Contains(stderr, "trainer.seed = 9, was") {
		t.Errorf("another seed: exit %d\n%s", code, stderr)
	}

	// Keys of a section that pretraining does not read may change.
	must(t, append(command("pretrain", "--set", "sft.ratio=0.3"), "--output", filepath.Join(dir, "b"))...)

	// A vocabulary that the configuration learns is saved with the model.
	learnt := filepath.Join(dir, "learnt")
	must(t, append(command("pretrain", "--set", "tokenizer.train_vocab=290"), "--output", learnt)...)
	if out := must(t, "eval", "perplexity", "--model", learnt, "--json"); !strings.Contains(out, `"bigram_bits_per_byte":`) {
		t.Errorf("perplexity with a learnt vocabulary: %s", out)
	}
	if code, _, stderr := meap(t, append(command("pretrain", "--set", "tokenizer.train_vocab=290", "--set", "tokenizer.path=bytes"), "--output", filepath.Join(dir, "both"))...); code != exitMisused || !strings.Contains(stderr, "tokenizer.train_vocab = 290") {
		t.Errorf("a tokenizer and a vocabulary to learn: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := meap(t, command("data", "inspect", "--step", "99999999999999")...); code != exitMisused || !strings.Contains(stderr, "trainer.steps") {
		t.Errorf("a step beyond the run: exit %d\n%s", code, stderr)
	}

	model := filepath.Join(dir, "a")
	var perplexity struct {
		BitsPerByte float64 `json:"bits_per_byte"`
		Bigram      float64 `json:"bigram_bits_per_byte"`
	}
	if err := json.Unmarshal([]byte(must(t, "eval", "perplexity", "--model", model, "--json")), &perplexity); err != nil || !(perplexity.BitsPerByte > 0 && perplexity.Bigram > 0) {
		t.Errorf("perplexity: %+v, %v", perplexity, err)
	}
	// Training goes on from a run's weights, which keep their sizes.
	must(t, command("pretrain", "--output", filepath.Join(dir, "c"), "--set", "model.path="+model)...)
	if code, _, stderr := meap(t, append(command("pretrain", "--output", filepath.Join(dir, "d"), "--set", "model.path="+model), "--set", "model.layers=3")...); code != exitMisused || !strings.Contains(stderr, "model.layers = 3") {
		t.Errorf("other sizes than the weights': exit %d\n%s", code, stderr)
	}

	// Where the report cannot be written, the results are printed all the same.
	if code, stdout, _ := meap(t, "eval", "perplexity", "--model", model, "--json", "--output", filepath.Join(text, "no")); code != exitFailed || !strings.Contains(stdout, `"bits_per_byte"`) {
		t.Errorf("a report that cannot be written: exit %d, printed %q", code, stdout)
	}
	must(t, "eval", "needle", "--model", model, "--depths", "0,100", "--json")
	for _, name := range []string{"perplexity/report.html", "perplexity/results.json", "needle/report.html", "needle/needle.png", "needle/results.json"} {
		if _, err := os.Stat(filepath.Join(model, "eval", name)); err != nil {
			t.Error(err)
		}
	}
	once := must(t, "generate", "--model", model, "--prompt", "The quick", "--max-new", "20")
	if again := must(t, "generate", "--model", model, "--prompt", "The quick", "--max-new", "20", "--threads", "1"); again != once {
		t.Errorf("the same seed wrote %q and %q", once, again)
	}
	if out := must(t, command("data", "inspect", "--json", "--rows", "1")...); !strings.Contains(out, `"masked":[`) {
		t.Errorf("data inspect: %s", out)
	}
	must(t, command("plan")...)

	// Of text that was changed after training, other parts would be held out.
	if err := os.WriteFile(text, []byte(strings.Repeat("The quick brown dog jumps over the lazy fox. ", 400)), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := meap(t, "eval", "perplexity", "--model", model); code != exitFailed || !strings.Contains(stderr, "--text FILE") {
		t.Errorf("perplexity on other text than the run's: exit %d\n%s", code, stderr)
	}
	// A second process of one run is refused before anything is read.
	t.Setenv("WORLD_SIZE", "2")
	if code, _, stderr := meap(t, command("pretrain", "--output", filepath.Join(t.TempDir(), "run"))...); code != exitMisused || !strings.Contains(stderr, "WORLD_SIZE") || strings.Contains(stderr, "tokenizer") {
		t.Errorf("one of two processes: exit %d\n%s", code, stderr)
	}
	t.Setenv("WORLD_SIZE", "")
	must(t, "doctor", "--json")
	for device, want := range map[string]int{"cpu": 0, "cuda:x": 2, "gpu": 2} {
		if code, _, stderr := meap(t, "doctor", "--device", device); code != want {
			t.Errorf("doctor --device %s ended with %d, want %d: %s", device, code, want, stderr)
		}
	}
	must(t, "version")
}

// losses returns the digits of every step's loss in --json output.
func losses(t *testing.T, output string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(output) {
		var r struct {
			Loss json.Number `json:"loss"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("not JSON: %q: %v", line, err)
		}
		if r.Loss != "" {
			all = append(all, r.Loss.String())
		}
	}
	return all
}
