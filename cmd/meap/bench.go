package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

func newBench(o *options) *cobra.Command {
	return group("bench", "Measure speed and memory", newBenchTrain(o), newBenchDecode(o), newBenchKernels(o))
}

// benchResult has the fields that PyTorch counterparts of this benchmark print.
type benchResult struct {
	System         string  `json:"system"`
	DType          string  `json:"dtype"`
	Device         string  `json:"device"`
	Params         int64   `json:"params"`
	TokensPerStep  int64   `json:"tokens_per_step"`
	MSPerStep      float64 `json:"ms_per_step"`
	TokensPerS     float64 `json:"tokens_per_s"`
	BestTokensPerS float64 `json:"best_tokens_per_s"`
	Seq            int     `json:"seq"`
	MicroBatch     int     `json:"micro_batch"`
	ModelTFLOPS    float64 `json:"model_tflops"`
	MFU            float64 `json:"mfu,omitempty"`
	PeakBytes      int64   `json:"peak_bytes"`
	FirstLoss      float64 `json:"first_loss"`
	LastLoss       float64 `json:"last_loss"`
}

func newBenchTrain(o *options) *cobra.Command {
	var cfg configFlags
	var warmup, steps int
	var profile bool
	c := &cobra.Command{
		Use:   "train",
		Short: "Time pretrain's own step on random tokens",
		Long: `Time pretrain's own step (masking, forward, backward, clipping, AdamW) on random token ids.

tokens_per_s comes from the median step, model_tflops from 6 FLOPs per token and parameter (without the input
embedding) and half of the sequence's attention products. mfu is their share of what the GPU can do by its data sheet, left
out where that is not known. peak_bytes is the largest resident set, on a GPU the most that was allocated there at a time.`,
		Example: `  meap bench train --preset meap-0.1b --seq 512 --micro-batch 2 --steps 8 --dtype bf16 --json
  meap bench train --preset meap-0.1b --seq 512 --micro-batch 2 --profile`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			if steps < 1 || warmup < 0 {
				return usagef("--steps must be at least 1 and --warmup at least 0")
			}
			r, times, err := benchTrain(conf, warmup, steps, profile)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c.OutOrStdout(), r)
			}
			share := ""
			if r.MFU > 0 {
				share = fmt.Sprintf(" (%.1f %% of the GPU's peak)", 100*r.MFU)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s, %s: %.1f ms per step, %.1f tokens/s (best %.1f), %.4f TFLOP/s%s, peak %s\n",
				r.Device, r.DType, r.MSPerStep, r.TokensPerS, r.BestTokensPerS, r.ModelTFLOPS, share, size(float64(r.PeakBytes)))
			for _, t := range times {
				fmt.Fprintln(c.OutOrStdout(), t)
			}
			return nil
		},
	}
	cfg.bind(c)
	usual := config.Default()
	cfg.defaults = func(c *config.Config) {
		c.Model.Preset = "meap-0.1b"
		c.Trainer.Seq, c.Trainer.MicroBatch, c.Trainer.Accumulate, c.Trainer.DType = 512, 2, 1, trainer.DTypeFP32
	}
	cfg.defaults(&usual)
	f := c.Flags()
	f.String("preset", usual.Model.Preset, "sizes of the model")
	f.Int("seq", usual.Trainer.Seq, "tokens of a row")
	f.Int("micro-batch", usual.Trainer.MicroBatch, "rows computed at a time")
	f.Int("accumulate", usual.Trainer.Accumulate, "micro-batches per step")
	f.String("dtype", usual.Trainer.DType, "fp32 or bf16")
	f.String("recompute", usual.Trainer.Recompute, "none or blocks")
	f.String("device", usual.Trainer.Device, "auto, cpu, cuda or cuda:N")
	f.IntVar(&steps, "steps", 8, "steps that are timed")
	f.IntVar(&warmup, "warmup", 2, "steps before those")
	f.BoolVar(&profile, "profile", false, "print the time by kind of operator")
	for flag, key := range map[string]string{
		"preset": "model.preset", "seq": "trainer.seq", "micro-batch": "trainer.micro_batch", "accumulate": "trainer.accumulate",
		"dtype": "trainer.dtype", "recompute": "trainer.recompute", "device": "trainer.device",
	} {
		cfg.flag(c, flag, key)
	}
	return c
}

func benchTrain(conf *config.Config, warmup, steps int, profile bool) (*benchResult, []string, error) {
	t := conf.Trainer
	model, err := setup.Model(conf, tokenizer.MinVocabSize)
	if err != nil {
		return nil, nil, err
	}
	dev, closeDevice, err := setup.Device(t)
	if err != nil {
		return nil, nil, err
	}
	defer closeDevice()
	// The last ids are kept for [MASK] and padding, as the reference's vocabulary has them.
	source, err := newRandomSource(conf, model.Vocab)
	if err != nil {
		return nil, nil, err
	}
	weights := transformer.Init(model, t.Seed)
	params, err := transformer.NewParameters(dev, weights)
	if err != nil {
		return nil, nil, err
	}
	defer params.Close()
	stepper, err := trainer.NewStepper(dev, params, t)
	if err != nil {
		return nil, nil, err
	}
	defer stepper.Close()
	r := &benchResult{
		System: "meap " + versionString(), DType: t.DType, Device: dev.Name(), Params: model.Parameters(), TokensPerStep: t.TokensPerStep(),
		Seq: t.Seq, MicroBatch: t.MicroBatch, FirstLoss: math.NaN(),
	}
	// As in pretrain, a GPU has the next steps queued while it works: a step's time is that between two results, and more steps than are
	// timed are queued so that none is missing at the end. Profiling waits for each kernel anyway.
	var seconds []float64
	last := time.Now()
	for step := 1; len(seconds) < steps; step++ {
		if step == warmup+1 && profile {
			stepper.Profile()
		}
		if err := stepper.Step(int64(step), source, t.LearningRate); err != nil {
			return nil, nil, err
		}
		for len(seconds) < steps {
			result, ok, err := stepper.Next(profile)
			if err != nil {
				return nil, nil, err
			}
			if !ok {
				break
			}
			now := time.Now()
			if result.Step > int64(warmup) {
				seconds = append(seconds, now.Sub(last).Seconds())
				if r.LastLoss = result.Loss; len(seconds) == 1 {
					r.FirstLoss = result.Loss
				}
			}
			last = now
		}
	}
	slices.Sort(seconds)
	median := (seconds[(len(seconds)-1)/2] + seconds[len(seconds)/2]) / 2
	r.MSPerStep = median * 1e3
	r.TokensPerS = float64(r.TokensPerStep) / median
	r.BestTokensPerS = float64(r.TokensPerStep) / seconds[0]
	r.ModelTFLOPS = model.FLOPsPerToken(t.Seq) * r.TokensPerS / 1e12
	precision := graph.FP32
	if t.DType == trainer.DTypeBF16 {
		precision = graph.BF16Operands
	}
	if peak, known := setup.PeakFLOPS(dev, precision); known {
		r.MFU = r.ModelTFLOPS * 1e12 / peak
	}
	r.PeakBytes = setup.DeviceMemory(dev)
	var times []string
	if profile {
		for _, k := range stepper.Times() {
			times = append(times, fmt.Sprintf("  %-24s %5d calls %10.2f ms per step", k.Kind, k.Calls, k.Total.Seconds()*1e3/float64(steps)))
		}
	}
	return r, times, nil
}

// randomSource gives rows of random ids, masked as the configuration says.
type randomSource struct {
	policy masking.Policy
	ids    int
	seq    int
	seed   uint64
}

func newRandomSource(conf *config.Config, vocab int) (*randomSource, error) {
	ids := max(1, vocab-64)
	mask := int32(min(ids, vocab-1))
	policy, err := masking.New(conf.Masking, mask, nil, conf.Trainer.Seed)
	return &randomSource{policy: policy, ids: ids, seq: conf.Trainer.Seq, seed: conf.Trainer.Seed}, err
}

// Collate implements trainer.Source.
func (s *randomSource) Collate(step int64, firstRow, rows int, b *dataset.Batch) error {
	if b.Rows != rows {
		n := rows * s.seq
		*b = dataset.Batch{Rows: rows, Seq: s.seq, Inputs: make([]int32, n), Labels: make([]int32, n), Positions: make([]int32, n),
			Starts: make([]int32, n), Masked: make([][]int32, rows)}
	}
	b.Step, b.FirstRow, b.Labelled = step, firstRow, rows*s.seq
	for r := range rows {
		random := rand.New(rand.NewPCG(s.seed, uint64(step)<<32|uint64(firstRow+r)))
		inputs, labels := b.Inputs[r*s.seq:(r+1)*s.seq], b.Labels[r*s.seq:(r+1)*s.seq]
		inputs[0] = int32(random.IntN(s.ids))
		for i := range labels {
			labels[i] = int32(random.IntN(s.ids))
			if i+1 < s.seq {
				inputs[i+1] = labels[i]
			}
			b.Positions[r*s.seq+i] = int32(i)
		}
		b.Masked[r] = s.policy.Apply(inputs, step-1, firstRow+r, b.Masked[r])
	}
	return nil
}
