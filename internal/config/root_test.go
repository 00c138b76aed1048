package config

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The keys that documents, scripts and other programs rely on.
func TestBindingKeys(t *testing.T) {
	cfg := Default()
	var names []string
	for _, k := range Keys(&cfg) {
		names = append(names, k.Name)
	}
	for section, fields := range map[string]string{
		"model":     "preset|path|layers|heads|kv_heads|head_dim|dim|ffn|vocab|max_seq|tie_embeddings|rope_theta|norm_eps|qkv_bias",
		"tokenizer": "path",
		"data":      "sources|validation|validation_fraction|cache_dir|document_mask|text_field",
		"facts":     "per_document|questions|document_bytes|fact|question",
		"masking":   "scheme|ratio|keep_special",
		"sft":       "template|copies|concat_visible|ratio|min_target|strict",
		"trainer": "steps|stop_after|micro_batch|accumulate|seq|learning_rate|min_learning_rate|warmup|weight_decay|clip|dtype|seed|" +
			"checkpoint_every|keep_checkpoints|validate_every|recompute|threads",
	} {
		for field := range strings.SplitSeq(fields, "|") {
			if !slices.Contains(names, section+"."+field) {
				t.Errorf("key %s.%s is missing", section, field)
			}
		}
	}
}

func TestDefaultIsValidAndSurvivesDump(t *testing.T) {
	cfg := Default()
	dumped, err := Dump(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	back := Default()
	if err := Load(&back, Options{File: write(t, string(dumped)), Env: []string{}}); err != nil {
		t.Fatal(err)
	}
	again, err := Dump(&back)
	if err != nil || string(again) != string(dumped) {
		t.Errorf("%v: dumped again:\n%s\nwas:\n%s", err, again, dumped)
	}
}

func TestUsageErrorsNameTheirKey(t *testing.T) {
	cases := map[string]string{ // --set -> what the error must begin with
		"trainer.lerning_rate=1":       "--set: unknown key trainer.lerning_rate: did you mean trainer.learning_rate?",
		"trainer.learning_rate=-1":     "trainer.learning_rate = -1: ",
		"trainer.steps=0":              "trainer.steps = 0: ",
		"trainer.dtype=fp8":            `trainer.dtype = "fp8": `,
		"trainer.device=tpu":           `trainer.device = "tpu": `,
		"masking.ratio=0.9":            "masking.ratio = 0.9: ",
		"masking.scheme=all":           `masking.scheme = "all": `,
		"sft.ratio=0.6":                "sft.ratio = 0.6: ",
		"sft.copies=row":               `sft.copies = "row": `,
		"sft.template=alpaka":          `sft.template = "alpaka": `,
		"sft.min_target=-1":            "sft.min_target = -1: ",
		"sft.concat_visible=true":      "sft.concat_visible = true: ",
		"data.validation_fraction=2":   "data.validation_fraction = 2: ",
		"model.layers=-1":              "model.layers = -1: ",
		"model.dim=99999999999":        "model.dim = 99999999999: ",
		"model.heads=3,model.dim=64":   "--set: model.heads = 3,model.dim=64: expected a whole number",
		"model.head_dim=33":            "model.head_dim = 33: ",
		"model.rope_theta=-1":          "model.rope_theta = -1: ",
		"model.norm_eps=1":             "model.norm_eps = 1: ",
		"model.max_seq=100":            "trainer.seq = 4096: must be at most model.max_seq, which is 100",
		"tokenizer.pth=x":              "--set: unknown key tokenizer.pth: did you mean tokenizer.path?",
		"trainer.warmup=-3":            "trainer.warmup = -3: ",
		"trainer.min_learning_rate=.1": "trainer.min_learning_rate = 0.1: ",
	}
	for set, want := range cases {
		cfg := Default()
		err := Load(&cfg, Options{Set: []string{set}, Env: []string{}})
		if !errors.Is(err, ErrUsage) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("--set %s: %v\nwant %s", set, err, want)
		}
	}
}

func TestModelContradictions(t *testing.T) {
	cases := map[string]ModelConfig{
		"model.path = x: model.preset is set too (p)":                  {Preset: "p", Path: "x"},
		"model.kv_heads = 3: must divide model.heads":                  {Heads: 4, KVHeads: 3},
		"model.dim = 65: must be an even multiple of model.heads":      {Heads: 4, Dim: 65},
		"model.dim = 60: must be an even multiple of model.heads":      {Heads: 4, Dim: 60},
		"model.rope_theta = NaN: must be above 1":                      {RopeTheta: math.NaN()},
		"model.norm_eps = NaN: must be above 0 and below 1, or 0 for ": {NormEps: math.NaN()},
	}
	for want, cfg := range cases {
		problems := cfg.Validate()
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), want) {
			t.Errorf("%+v: %v, want %s", cfg, problems, want)
		}
	}
	if problems := (ModelConfig{Heads: 4, Dim: 60, HeadDim: 16, KVHeads: 2}).Validate(); len(problems) != 0 {
		t.Errorf("a head size of its own: %v", problems)
	}
}

// No values make validation panic, and each of its errors begins with a full key.
func TestValidateNeverPanics(t *testing.T) {
	ints := []int64{math.MinInt64, -1, 0, 1, 2, 3, 7, 4096, math.MaxInt32, math.MaxInt64}
	floats := []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0, 1e-300, 0.5, 1, 1e300}
	texts := []string{"", "auto", "fp32", "none", "per_row", "cuda:1", "\x00", "é"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		cfg := Default()
		keys := Keys(&cfg)
		for range 1 + r.IntN(12) {
			k := keys[r.IntN(len(keys))]
			field := reflect.ValueOf(&cfg).Elem().Field(k.index[0]).Field(k.index[1])
			if field.Kind() == reflect.Slice {
				field.Set(reflect.ValueOf([]string{texts[r.IntN(len(texts))]}))
				continue
			}
			if field.Kind() == reflect.Pointer {
				field.Set(reflect.New(field.Type().Elem()))
				continue
			}
			switch n := ints[r.IntN(len(ints))]; {
			case field.CanInt():
				field.SetInt(n)
			case field.CanUint():
				field.SetUint(uint64(n))
			case field.CanFloat():
				field.SetFloat(floats[r.IntN(len(floats))])
			case field.Kind() == reflect.String:
				field.SetString(texts[r.IntN(len(texts))])
			}
		}
		for _, problem := range split(cfg.Validate()) {
			name := strings.TrimRight(strings.Fields(problem.Error())[0], "0123456789[]")
			if !slices.ContainsFunc(keys, func(k Key) bool { return k.Name == name || k.Name == strings.Fields(problem.Error())[0] }) {
				t.Fatalf("does not begin with a key: %v", problem)
			}
		}
	}
}
