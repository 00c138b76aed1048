package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// decodeResult is what bench decode prints. A token's bytes are those that must be read for it: the weights but the input embedding,
// once for all sequences, and the keys and values of what came before. The share is that of the processor's read bandwidth.
type decodeResult struct {
	System     string  `json:"system"`
	DType      string  `json:"dtype"`
	Device     string  `json:"device"`
	Params     int64   `json:"params"`
	Batch      int     `json:"batch"`
	Prompt     int     `json:"prompt"`
	Tokens     int     `json:"tokens"`
	PromptPerS float64 `json:"prompt_tokens_per_s"`
	MSPerToken float64 `json:"ms_per_token"`
	TokensPerS float64 `json:"tokens_per_s"` // of all sequences together
	BestPerS   float64 `json:"best_tokens_per_s"`
	Bytes      float64 `json:"bytes_per_token"`
	GBPerS     float64 `json:"gb_per_s"`
	ReadGBPerS float64 `json:"read_gb_per_s,omitempty"`
	Share      float64 `json:"share,omitempty"`
	PeakBytes  int64   `json:"peak_bytes"`
}

func newBenchDecode(o *options) *cobra.Command {
	var cfg configFlags
	var batch, prompt, tokens int
	c := &cobra.Command{
		Use:   "decode",
		Short: "Time generation, token by token, beside this machine's read bandwidth",
		Long: `Time generation on random weights: the prompt is read in chunks, then one token after the other is added to each sequence.

tokens_per_s comes from the median token. What limits it is memory: bytes_per_token counts the weights but the input embedding, and the
keys and values of the tokens before, in fp32. share is gb_per_s over the bandwidth at which all threads together read a large array,
which is measured before and after, the larger one counting; it is left out on a GPU.`,
		Example: `  meap bench decode --preset meap-0.1b
  meap bench decode --preset meap-0.1b --batch 4 --prompt 1024 --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			if batch < 1 || prompt < 1 || tokens < 1 {
				return usagef("--batch, --prompt and --tokens must be at least 1")
			}
			r, err := benchDecode(conf, batch, prompt, tokens)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c.OutOrStdout(), r)
			}
			share := ""
			if r.Share > 0 {
				share = fmt.Sprintf(", %.0f %% of the %.1f GB/s that can be read", 100*r.Share, r.ReadGBPerS)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s, %s: prompt %.1f tokens/s; then %.2f ms per token, %.1f tokens/s (best %.1f), %.1f GB/s%s; peak %s\n",
				r.Device, r.DType, r.PromptPerS, r.MSPerToken, r.TokensPerS, r.BestPerS, r.GBPerS, share, size(float64(r.PeakBytes)))
			return nil
		},
	}
	cfg.bind(c)
	usual := config.Default()
	cfg.defaults = func(c *config.Config) {
		c.Model.Preset, c.Trainer.Seq, c.Trainer.DType = "meap-0.1b", 1, trainer.DTypeFP32
	}
	cfg.defaults(&usual)
	f := c.Flags()
	f.String("preset", usual.Model.Preset, "sizes of the model")
	f.String("dtype", usual.Trainer.DType, "fp32 or bf16")
	f.String("device", usual.Trainer.Device, "auto, cpu, cuda or cuda:N")
	f.IntVar(&batch, "batch", 1, "sequences that are generated together")
	f.IntVar(&prompt, "prompt", 256, "tokens that are read first")
	f.IntVar(&tokens, "tokens", 64, "tokens that are added to each sequence and timed")
	for flag, key := range map[string]string{"preset": "model.preset", "dtype": "trainer.dtype", "device": "trainer.device"} {
		cfg.flag(c, flag, key)
	}
	return c
}

func benchDecode(conf *config.Config, batch, prompt, tokens int) (*decodeResult, error) {
	t := conf.Trainer
	model, err := setup.Model(conf, tokenizer.MinVocabSize)
	if err != nil {
		return nil, err
	}
	model.MaxSeq = max(model.MaxSeq, prompt+tokens)
	dev, closeDevice, err := setup.Device(t)
	if err != nil {
		return nil, err
	}
	defer closeDevice()
	params, err := transformer.NewParameters(dev, transformer.Init(model, t.Seed))
	if err != nil {
		return nil, err
	}
	defer params.Close()
	precision := graph.FP32
	if t.DType == trainer.DTypeBF16 {
		precision = graph.BF16Operands
	}
	r := &decodeResult{
		System: "meap " + versionString(), DType: t.DType, Device: dev.Name(), Params: model.Parameters(), Batch: batch, Prompt: prompt, Tokens: tokens,
		ReadGBPerS: readBandwidth(dev) / 1e9,
	}
	if err := r.time(params, precision); err != nil {
		return nil, err
	}
	r.ReadGBPerS = max(r.ReadGBPerS, readBandwidth(dev)/1e9)
	r.Bytes = 4*float64(model.MultiplyingWeights()) + float64(batch)*float64(model.CacheBytes(prompt+(tokens+1)/2))
	r.GBPerS = r.Bytes / r.MSPerToken / 1e6
	if r.ReadGBPerS > 0 {
		r.Share = r.GBPerS / r.ReadGBPerS
	}
	r.PeakBytes = setup.DeviceMemory(dev)
	return r, nil
}

// time reads the prompts, and then adds the tokens.
func (r *decodeResult) time(params *transformer.Parameters, precision graph.Precision) error {
	g, err := transformer.NewGenerator(params, transformer.GeneratorOptions{Batch: r.Batch, Context: r.Prompt + r.Tokens, Precision: precision})
	if err != nil {
		return err
	}
	defer g.Close()
	random := rand.New(rand.NewPCG(1, 2))
	next := make([][]int32, r.Batch)
	read := func(n int) (seconds float64, err error) {
		for i := range next {
			next[i] = make([]int32, n)
			for j := range next[i] {
				next[i][j] = int32(random.IntN(params.Config().Vocab))
			}
		}
		start := time.Now()
		_, err = g.Extend(next)
		return time.Since(start).Seconds(), err
	}
	seconds, err := read(r.Prompt)
	if err != nil {
		return err
	}
	r.PromptPerS = float64(r.Batch*r.Prompt) / seconds
	times := make([]float64, r.Tokens)
	for i := range times {
		if times[i], err = read(1); err != nil {
			return err
		}
	}
	slices.Sort(times)
	median := (times[(len(times)-1)/2] + times[len(times)/2]) / 2
	r.MSPerToken, r.TokensPerS, r.BestPerS = median*1e3, float64(r.Batch)/median, float64(r.Batch)/times[0]
	return nil
}

// readBandwidth is how many bytes per second a processor reads at most; 0 for a GPU.
func readBandwidth(dev graph.Device) float64 {
	if d, ok := dev.(*cpu.Device); ok {
		return d.Kernels().PeakReadBandwidth()
	}
	return 0
}
