package trainer

import (
	"math"
	"strings"
	"testing"
)

func TestDefaultConfigIsTheReference(t *testing.T) {
	c := DefaultConfig()
	if problems := c.Validate(); len(problems) != 0 {
		t.Fatalf("the default configuration is invalid: %v", problems)
	}
	if got := c.RowsPerStep(); got != 256 {
		t.Errorf("rows per step %d, want the reference's 256", got)
	}
	if got := c.TokensPerStep(); got != 256*4096 {
		t.Errorf("tokens per step %d, want %d", got, 256*4096)
	}
	// 2 billion tokens, what the reference's 0.1b run sees.
	if total := c.TokensPerStep() * c.Steps; total < 1_990_000_000 || total > 2_010_000_000 {
		t.Errorf("tokens of the run: %d", total)
	}
}

func TestLastStep(t *testing.T) {
	for _, c := range []struct{ steps, stop, want int64 }{{20, 0, 20}, {20, 10, 10}, {20, 20, 20}, {20, 30, 20}} {
		if got := (Config{Steps: c.steps, StopAfter: c.stop}).LastStep(); got != c.want {
			t.Errorf("steps %d, stop_after %d: last step %d, want %d", c.steps, c.stop, got, c.want)
		}
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	cases := []struct {
		key    string
		change func(*Config)
	}{
		{"steps", func(c *Config) { c.Steps = 0 }},
		{"steps", func(c *Config) { c.Steps = math.MaxInt64 }},
		{"stop_after", func(c *Config) { c.StopAfter = -1 }},
		{"micro_batch", func(c *Config) { c.MicroBatch = 0 }},
		{"accumulate", func(c *Config) { c.Accumulate = -4 }},
		{"seq", func(c *Config) { c.Seq = 0 }},
		{"learning_rate", func(c *Config) { c.LearningRate = 0 }},
		{"learning_rate", func(c *Config) { c.LearningRate = nan }},
		{"min_learning_rate", func(c *Config) { c.MinLearningRate = -1 }},
		{"min_learning_rate", func(c *Config) { c.MinLearningRate = nan }},
		{"min_learning_rate", func(c *Config) { c.MinLearningRate = 2 * c.LearningRate }},
		{"warmup", func(c *Config) { c.Warmup = -1 }},
		{"weight_decay", func(c *Config) { c.WeightDecay = inf }},
		{"beta1", func(c *Config) { c.Beta1 = 1 }},
		{"beta2", func(c *Config) { c.Beta2 = nan }},
		{"epsilon", func(c *Config) { c.Epsilon = 0 }},
		{"clip", func(c *Config) { c.Clip = -1 }},
		{"clip", func(c *Config) { c.Clip = inf }},
		{"dtype", func(c *Config) { c.DType = "fp16" }},
		{"checkpoint_every", func(c *Config) { c.CheckpointEvery = -1 }},
		{"keep_checkpoints", func(c *Config) { c.KeepCheckpoints = -1 }},
		{"validate_every", func(c *Config) { c.ValidateEvery = -1 }},
		{"validate_rows", func(c *Config) { c.ValidateRows = -1 }},
		{"recompute", func(c *Config) { c.Recompute = "all" }},
		{"threads", func(c *Config) { c.Threads = -1 }},
		{"cpu_isa", func(c *Config) { c.CPUISA = "" }},
		{"device", func(c *Config) { c.Device = "cuda:" }},
		{"device", func(c *Config) { c.Device = "gpu" }},
	}
	for _, c := range cases {
		cfg := DefaultConfig()
		c.change(&cfg)
		problems := cfg.Validate()
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), "trainer."+c.key+" = ") {
			t.Errorf("%s: problems %v, want one that begins with the key", c.key, problems)
		}
	}
}
