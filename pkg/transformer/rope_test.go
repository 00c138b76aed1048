package transformer

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Frequencies and factors are those of Hugging Face transformers, in scripts/peer/rope.py's words.
func TestRopeScalingOfTransformers(t *testing.T) {
	var cases []struct {
		Config          json.RawMessage
		Length          int
		Frequencies     []float32
		AttentionFactor float64 `json:"attention_factor"`
	}
	if err := readJSON(filepath.Join("testdata", "rope.json"), &cases); err != nil {
		t.Fatal(err)
	}
	types := map[RopeType]int{}
	for _, want := range cases {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, configFile), want.Config, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(dir)
		if err != nil {
			t.Errorf("%s: %v", want.Config, err)
			continue
		}
		types[c.RopeScaling.Type]++
		got, attention := c.frequencies(want.Length)
		if math.Abs(float64(attention)-want.AttentionFactor) > 1e-7*want.AttentionFactor || len(got) != len(want.Frequencies) {
			t.Errorf("%s: attention factor %v, want %v; %d frequencies, want %d", want.Config, attention, want.AttentionFactor, len(got), len(want.Frequencies))
			continue
		}
		for i, f := range got {
			// A few units in the last place of fp32; dynamic's base is rounded there too, and raised to a power.
			if w := float64(want.Frequencies[i]); math.Abs(float64(f)-w) > 1e-6*w {
				t.Errorf("%s, %d tokens: frequency %d is %v, want %v", want.Config, want.Length, i, f, w)
			}
		}
		// Written and read again it is the same.
		if err := writeJSON(filepath.Join(dir, configFile), c.hf()); err != nil {
			t.Fatal(err)
		}
		if again, err := LoadConfig(dir); err != nil || again != c {
			t.Errorf("written and read again: %+v, %v\nwas %+v", again, err, c)
		}
	}
	for _, name := range []RopeType{"", RopeLinear, RopeDynamic, RopeYarn, RopeLlama3} {
		if types[name] < 4 {
			t.Errorf("%d cases of %q", types[name], name)
		}
	}
}

func TestScaleRope(t *testing.T) {
	yarn := RopeScaling{Type: RopeYarn, Factor: 4, Original: 32, BetaFast: 32, BetaSlow: 1, AttentionFactor: 0.1*math.Log(4) + 1}
	for spec, want := range map[string]Config{
		"linear:2.5": with(tiny, func(c *Config) { c.MaxSeq, c.RopeScaling = 80, RopeScaling{Type: RopeLinear, Factor: 2.5} }),
		"dynamic:2": with(tiny, func(c *Config) {
			c.MaxSeq, c.RopeScaling = 64, RopeScaling{Type: RopeDynamic, Factor: 2, Original: 32}
		}),
		"yarn:4":    with(tiny, func(c *Config) { c.MaxSeq, c.RopeScaling = 128, yarn }),
		"default:3": with(tiny, func(c *Config) { c.MaxSeq = 96 }),
		"yarn:4,beta_fast=16,attention_factor=1.5,truncate=false": with(tiny, func(c *Config) {
			c.MaxSeq, c.RopeScaling = 128, yarn
			c.RopeScaling.BetaFast, c.RopeScaling.AttentionFactor, c.RopeScaling.Exact = 16, 1.5, true
		}),
		"llama3:8,original_max_position_embeddings=16": with(tiny, func(c *Config) {
			c.MaxSeq, c.RopeScaling = 128, RopeScaling{Type: RopeLlama3, Factor: 8, Original: 16, LowFreqFactor: 1, HighFreqFactor: 4}
		}),
	} {
		got, err := tiny.ScaleRope(spec)
		if err != nil || got != want {
			t.Errorf("%s:\n%+v, %v\nwant %+v", spec, got, err, want)
		}
		// Another scaling starts from the same positions, as far as the first one says what they were.
		if got.RopeScaling.Original > 0 && got.RopeScaling.Original == tiny.MaxSeq {
			if again, err := got.ScaleRope("default:3"); err != nil || again.MaxSeq != 96 {
				t.Errorf("%s, then default:3: %+v, %v", spec, again, err)
			}
		}
	}
	for spec, want := range map[string]string{
		"":                           "factor",
		"yarn":                       "factor",
		"yarn:many":                  "factor",
		"yarn:0.5":                   "factor = 0.5",
		"yarn:NaN":                   "NaN",
		"default:0":                  "factor",
		"longrope:4":                 `"longrope"`,
		"yarn:4,beta=3":              "beta",
		"yarn:4,beta_fast=x":         "beta_fast",
		"yarn:4,beta_fast=0.5":       "beta_slow",
		"yarn:4,mscale=true":         "mscale",
		"llama3:8,low_freq_factor=4": "low_freq_factor",
		"linear:1000000":             "max_seq",
		"yarn:4,attention_factor=-1": "attention_factor",
	} {
		if c, err := tiny.ScaleRope(spec); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "yarn:4 or") {
			t.Errorf("%q: %+v, error %v, want one with %q", spec, c, err, want)
		}
	}
	if c, err := with(tiny, func(c *Config) { c.HeadDim = 2 }).ScaleRope("dynamic:2"); err == nil {
		t.Errorf("dynamic scaling of heads of 2: %+v", c)
	}
}

func TestExtended(t *testing.T) {
	for _, c := range []struct {
		scaling string
		max     int
		want    int
	}{
		{`null`, 100, 100},
		{`{"rope_type": "linear", "factor": 4}`, 100, 100},
		{`{"rope_type": "dynamic", "factor": 4}`, 100, 400},
		{`{"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 50}`, 100, 200},
		{`{"rope_type": "yarn", "original_max_position_embeddings": 25}`, 100, 100},
		{`{"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 8, "low_freq_factor": 1, "high_freq_factor": 4}`, 100, 100},
	} {
		dir := t.TempDir()
		text := fmt.Sprintf(`{"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 24, "intermediate_size": 40,
			"vocab_size": 50, "max_position_embeddings": %d, "rope_scaling": %s}`, c.max, c.scaling)
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadConfig(dir)
		if err != nil || got.MaxSeq != c.max || got.Extended().MaxSeq != c.want {
			t.Errorf("%s: %d positions, extended %d (want %d), %v", c.scaling, got.MaxSeq, got.Extended().MaxSeq, c.want, err)
		}
	}
}

// The factor on cosines and sines scales queries and keys.
func TestRopeTablesAttentionFactor(t *testing.T) {
	c := with(tiny, func(c *Config) {
		c.RopeScaling = RopeScaling{Type: RopeYarn, Factor: 1, Original: 32, BetaFast: 32, BetaSlow: 1, AttentionFactor: 1.5}
	})
	cos, sin := ropeTables(c, 8, 8)
	plain, plainSin := ropeTables(tiny, 8, 8)
	for i := range cos {
		if math.Abs(float64(cos[i]-1.5*plain[i])) > 1e-6 || math.Abs(float64(sin[i]-1.5*plainSin[i])) > 1e-6 {
			t.Fatalf("element %d: cos %v, sin %v, want 1.5 times %v, %v", i, cos[i], sin[i], plain[i], plainSin[i])
		}
	}
}

func FuzzScaleRope(f *testing.F) {
	for _, spec := range []string{"yarn:4", "dynamic:2", "linear:1e300", "llama3:8,low_freq_factor=1,high_freq_factor=1e-300", "yarn:4,truncate=false,mscale=1e308,mscale_all_dim=1"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		c, err := tiny.ScaleRope(spec)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%q gave %+v: %v", spec, c, err)
		}
		frequency, attention := c.frequencies(c.MaxSeq)
		for i, v := range append(frequency, attention) {
			if v != v || math.IsInf(float64(v), 0) || v < 0 {
				t.Errorf("%q: value %d is %v", spec, i, v)
			}
		}
	})
}
