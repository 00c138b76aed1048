package config

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/quick"
)

func TestDumpKeepsTheOrder(t *testing.T) {
	cfg := newToy()
	tie := true
	cfg.Model.Tie = &tie
	cfg.Model.Path = "yes"
	cfg.Trainer.MinRate = 3e-20
	got, err := Dump(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := `model:
    path: "yes"
    tie: true
    theta: null
data:
    sources: [one, two]
    sizes: []
    weights: []
trainer:
    steps: 10
    rows: 4
    learning_rate: 0.0004
    min_learning_rate: 3.0e-20
    seed: 3407
    fast: false
    small: 0
`
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// What Dump writes, Load reads back to the same values, whatever they are.
func TestDumpLoadRoundTrip(t *testing.T) {
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := newToy()
		cfg.Model.Path = text(r)
		if r.IntN(2) == 0 {
			theta := r.NormFloat64() * 1e6
			cfg.Model.Theta = &theta
		}
		cfg.Data.Sources = nil
		for range r.IntN(4) {
			cfg.Data.Sources = append(cfg.Data.Sources, text(r))
			cfg.Data.Weights = append(cfg.Data.Weights, r.ExpFloat64()*1e-12)
			cfg.Data.Sizes = append(cfg.Data.Sizes, int(r.Uint64()))
		}
		cfg.Trainer.Steps = int64(r.Uint64())
		cfg.Trainer.Rows = 1 + r.IntN(9)
		cfg.Trainer.LearningRate = r.Float64() + 1e-300
		cfg.Trainer.Seed = r.Uint64()
		cfg.Trainer.Small = int8(r.Uint64())
		dumped, err := Dump(cfg)
		if err != nil {
			t.Fatal(err)
		}
		back := newToy()
		ix := newIndex(Keys(back))
		values := map[string]any{}
		if problems := ix.readYAML("dump", dumped, values); len(problems) > 0 {
			t.Errorf("%v\n%s", problems, dumped)
			return false
		}
		resolved, err := merge(back, []map[string]any{values})
		if err != nil {
			t.Fatal(err)
		}
		// A list without items may come back as nil or as an empty list.
		a, errA := json.Marshal(Flatten(cfg))
		b, errB := json.Marshal(Flatten(resolved))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(a), ":[]", ":null") == strings.ReplaceAll(string(b), ":[]", ":null")
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
}

// text makes texts that YAML has to quote, or that look like something else.
func text(r *rand.Rand) string {
	odd := []string{"null", "~", "yes", "1e3", "[a]", "a: b", "# x", " x ", "'", `"`, "\n", "\t", "é", "- a", "*a", "&a", "!!int 1", "", "0x10", "a,b", "{", "\u2028", "\x07"}
	var b strings.Builder
	for range r.IntN(3) {
		b.WriteString(odd[r.IntN(len(odd))])
	}
	return b.String()
}

func TestFlatten(t *testing.T) {
	flat := Flatten(newToy())
	if len(flat) != 13 || flat["trainer.seed"] != uint64(3407) || flat["model.tie"] != nil {
		t.Errorf("%v", flat)
	}
}

// No text makes the reader panic, and whatever it cannot read is a usage error.
func FuzzLoad(f *testing.F) {
	f.Add("trainer:\n  rows: 1\n", "trainer.rows=1_0e0", "MEAP_TRAINER_SEED=1")
	f.Add("trainer: &a {rows: *a}\n", "data.sources=[a,[b],{c: d}]", "MEAP_DATA_SIZES=[1,2")
	f.Add("? [a]\n: b\n<<: {}\n", "=", "MEAP_=")
	f.Add("data: {sources: !!binary aGk=}\n---\n", "data.weights=[&a 1, *a]", "MEAP_MODEL_TIE=\xff")
	f.Add("%YAML 1.1\n--- !!map {}\n", "trainer.steps=1e999999999999", "MEAP_TRAINER_SMALL=--1")
	f.Fuzz(func(t *testing.T, file, set, env string) {
		cfg := newToy()
		ix := newIndex(Keys(cfg))
		values := map[string]any{}
		ix.readYAML("f", []byte(file), values)
		if _, err := merge(cfg, []map[string]any{values}); err != nil {
			t.Errorf("values that were read do not decode: %v", err)
		}
		if err := Load(cfg, Options{Set: []string{set}, Env: []string{env}}); err != nil && !errors.Is(err, ErrUsage) {
			t.Errorf("%q %q: %v", set, env, err)
		}
	})
}
