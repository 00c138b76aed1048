// Package trainer runs the training loop: schedule, accumulation, optimiser, validation, checkpoints, metrics and resume.
package trainer

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Config is the section trainer of the configuration. DefaultConfig holds the values of the reference's smallest run.
type Config struct {
	Steps           int64   `mapstructure:"steps" help:"optimiser steps of the whole learning-rate schedule"`
	StopAfter       int64   `mapstructure:"stop_after" help:"end after this step with a checkpoint, the schedule still that of trainer.steps (0: run to trainer.steps)"`
	MicroBatch      int     `mapstructure:"micro_batch" help:"rows computed at a time"`
	Accumulate      int     `mapstructure:"accumulate" help:"micro-batches whose gradients are summed for one optimiser step"`
	Seq             int     `mapstructure:"seq" help:"tokens of a row, the context length of training"`
	LearningRate    float64 `mapstructure:"learning_rate" help:"peak learning rate, reached at the end of the warm-up"`
	MinLearningRate float64 `mapstructure:"min_learning_rate" help:"learning rate of the last step, where the cosine ends"`
	Warmup          int64   `mapstructure:"warmup" help:"steps over which the learning rate rises linearly (cut to half the run where it is not shorter than the run)"`
	WeightDecay     float64 `mapstructure:"weight_decay" help:"decoupled weight decay of AdamW, on all parameters"`
	Beta1           float64 `mapstructure:"beta1" help:"decay of AdamW's first moment"`
	Beta2           float64 `mapstructure:"beta2" help:"decay of AdamW's second moment"`
	Epsilon         float64 `mapstructure:"epsilon" help:"term added to AdamW's denominator"`
	Clip            float64 `mapstructure:"clip" help:"largest norm of the gradient, longer ones are scaled down to it (0: never)"`
	DType           string  `mapstructure:"dtype" help:"activations and operands of matrix products: fp32, or bf16 with fp32 weights and sums"`
	Seed            uint64  `mapstructure:"seed" help:"seed of weights, order of rows and masks"`
	CheckpointEvery int64   `mapstructure:"checkpoint_every" help:"steps between checkpoints (0: only at the end)"`
	KeepCheckpoints int     `mapstructure:"keep_checkpoints" help:"newest checkpoints that are kept (0: all)"`
	ValidateEvery   int64   `mapstructure:"validate_every" help:"steps between validations; there is one at the end in any case (0: only at the end)"`
	ValidateRows    int     `mapstructure:"validate_rows" help:"rows of one validation, the same ones each time (0: all)"`
	Recompute       string  `mapstructure:"recompute" help:"activations computed a second time in the backward pass to save memory: none (but those that cost next to nothing) or blocks"`
	Threads         int     `mapstructure:"threads" help:"worker threads; results do not depend on them (0: one per core)"`
	CPUISA          string  `mapstructure:"cpu_isa" help:"instruction set of the CPU kernels, as meap doctor lists them (auto: the best that this processor has)"`
	Device          string  `mapstructure:"device" help:"where to train: auto, cpu, cuda or cuda:n"`
}

// Values of Config.DType.
const (
	DTypeFP32 = "fp32"
	DTypeBF16 = "bf16"
)

// Values of Config.Recompute.
const (
	RecomputeNone   = "none"
	RecomputeBlocks = "blocks"
)

// Auto is the value of Config.Device and Config.CPUISA that leaves the choice to the program.
const Auto = "auto"

// DefaultConfig returns the settings of the reference's meap-0.1b run (global batch of 256 rows of 4096 tokens, AdamW 0.9/0.95,
// cosine 4e-4 -> 4e-5, seed 3407). What the reference leaves open, such as how often to save, is chosen for a run of hours.
func DefaultConfig() Config {
	return Config{
		Steps:           1907,
		MicroBatch:      16,
		Accumulate:      16,
		Seq:             4096,
		LearningRate:    4e-4,
		MinLearningRate: 4e-5,
		Warmup:          190,
		WeightDecay:     0.05,
		Beta1:           0.9,
		Beta2:           0.95,
		Epsilon:         1e-8,
		Clip:            1,
		DType:           DTypeBF16,
		Seed:            3407,
		CheckpointEvery: 500,
		KeepCheckpoints: 2,
		ValidateEvery:   100,
		ValidateRows:    64,
		Recompute:       RecomputeNone,
		CPUISA:          Auto,
		Device:          Auto,
	}
}

// Upper limits that no machine reaches. They keep the products that sizes are computed from (rows per step, tokens per step, tokens of
// the whole run) inside an int64.
const (
	maxSteps = 1 << 32
	maxRows  = 1 << 20
	maxSeq   = 1 << 24
)

var devicePattern = regexp.MustCompile(`^(auto|cpu|cuda(:[0-9]{1,4})?)$`)

// Validate returns one error for each value out of its range, each beginning with the full key.
func (c Config) Validate() []error {
	var problems []error
	bad := func(key string, value any, format string, args ...any) {
		problems = append(problems, fmt.Errorf("trainer.%s = %v: %s", key, value, fmt.Sprintf(format, args...)))
	}
	whole := func(key string, v, low, high int64) {
		if v < low || v > high {
			bad(key, v, "must be a whole number from %d to %d", low, high)
		}
	}
	// The comparisons are written so that NaN fails them.
	real := func(key string, v float64, ok bool, want string) {
		if !ok || math.IsInf(v, 0) {
			bad(key, v, "must be %s", want)
		}
	}
	choice := func(key, v string, choices ...string) {
		if !slices.Contains(choices, v) {
			bad(key, fmt.Sprintf("%q", v), "must be one of %s", strings.Join(choices, ", "))
		}
	}

	whole("steps", c.Steps, 1, maxSteps)
	whole("stop_after", c.StopAfter, 0, maxSteps)
	whole("micro_batch", int64(c.MicroBatch), 1, maxRows)
	whole("accumulate", int64(c.Accumulate), 1, maxRows)
	whole("seq", int64(c.Seq), 1, maxSeq)
	real("learning_rate", c.LearningRate, c.LearningRate > 0 && c.LearningRate <= 1, "above 0 and at most 1")
	switch {
	case !(c.MinLearningRate >= 0):
		bad("min_learning_rate", c.MinLearningRate, "must be 0 or more")
	case c.LearningRate > 0 && c.MinLearningRate > c.LearningRate:
		bad("min_learning_rate", c.MinLearningRate, "must be at most trainer.learning_rate, which is %v", c.LearningRate)
	}
	whole("warmup", c.Warmup, 0, maxSteps)
	real("weight_decay", c.WeightDecay, c.WeightDecay >= 0 && c.WeightDecay <= 10, "from 0 to 10")
	real("beta1", c.Beta1, c.Beta1 >= 0 && c.Beta1 < 1, "from 0 to below 1")
	real("beta2", c.Beta2, c.Beta2 >= 0 && c.Beta2 < 1, "from 0 to below 1")
	real("epsilon", c.Epsilon, c.Epsilon > 0 && c.Epsilon <= 1, "above 0 and at most 1")
	real("clip", c.Clip, c.Clip >= 0, "0 (never clip) or more")
	choice("dtype", c.DType, DTypeFP32, DTypeBF16)
	whole("checkpoint_every", c.CheckpointEvery, 0, maxSteps)
	whole("keep_checkpoints", int64(c.KeepCheckpoints), 0, math.MaxInt32)
	whole("validate_every", c.ValidateEvery, 0, maxSteps)
	whole("validate_rows", int64(c.ValidateRows), 0, math.MaxInt32)
	choice("recompute", c.Recompute, RecomputeNone, RecomputeBlocks)
	whole("threads", int64(c.Threads), 0, 1<<14)
	if c.CPUISA == "" {
		bad("cpu_isa", `""`, "must be auto or a name that `meap doctor` lists")
	}
	if !devicePattern.MatchString(c.Device) {
		bad("device", fmt.Sprintf("%q", c.Device), "must be one of auto, cpu, cuda, cuda:n")
	}
	return problems
}

// RowsPerStep is the number of rows in one optimiser step, the same for every split into micro-batches.
func (c Config) RowsPerStep() int { return c.MicroBatch * c.Accumulate }

// TokensPerStep is the number of input tokens in one optimiser step.
func (c Config) TokensPerStep() int64 { return int64(c.RowsPerStep()) * int64(c.Seq) }

// LastStep is the step after which the run ends: trainer.stop_after where it is set and earlier than the end of the schedule.
func (c Config) LastStep() int64 {
	if c.StopAfter > 0 && c.StopAfter < c.Steps {
		return c.StopAfter
	}
	return c.Steps
}
