package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"meap/internal/setup"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

func newGenerate(o *options) *cobra.Command {
	var model, prompt, device string
	var noBOS bool
	var s transformer.Sampling
	c := &cobra.Command{
		Use:   "generate",
		Short: "Continue a prompt",
		Long: `Continue a prompt, token by token, until the model ends its text, --max-new tokens are there, or the
context is full. The same seed gives the same text. A text ends with any of the ids that eos_token_id names in
generation_config.json or, where that names none, in config.json, and with the tokenizer's own.`,
		Example: `  meap generate --model runs/quickstart --prompt 'func main() {'
  meap generate --model runs/quickstart --prompt 'package net' --temperature 0
  echo 'package net' | meap generate --model runs/quickstart --prompt - --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if model == "" {
				return usagef("generate needs --model DIR: a model folder, or a run's output folder such as runs/quickstart")
			}
			if err := s.Validate(); err != nil {
				return usagef("%v", err)
			}
			if prompt == "-" {
				text, err := io.ReadAll(c.InOrStdin())
				if err != nil {
					return fmt.Errorf("read the prompt from standard input: %w", err)
				}
				prompt = string(text)
			}
			t := trainer.DefaultConfig()
			t.Threads, t.CPUISA, t.Device = o.threads, o.cpuISA, device
			m, err := setup.OpenModel(model, t)
			if err != nil {
				return err
			}
			defer m.Close()
			return generate(c, o, m, prompt, noBOS, s)
		},
	}
	f := c.Flags()
	f.StringVarP(&model, "model", "m", "", "model folder, or the output folder of a run (its newest checkpoint is taken)")
	f.StringVarP(&prompt, "prompt", "p", "", "text to continue; - reads standard input")
	f.BoolVar(&noBOS, "no-bos", false, "do not begin with the token that begins a text")
	f.IntVar(&s.MaxNew, "max-new", 200, "tokens at most (0: until the context is full)")
	f.Float64Var(&s.Temperature, "temperature", 0.8, "0 takes the most likely token, higher values are more adventurous")
	f.IntVar(&s.TopK, "top-k", 0, "choose among so many most likely tokens (0: all)")
	f.Float64Var(&s.TopP, "top-p", 0.95, "choose among the most likely tokens with this probability together (0: all)")
	f.Uint64Var(&s.Seed, "seed", 1, "seed of the choices")
	f.StringVar(&device, "device", "auto", "where to compute: auto, cpu, cuda or cuda:N")
	return endingWell(c)
}

func generate(c *cobra.Command, o *options, m *setup.Trained, prompt string, noBOS bool, s transformer.Sampling) error {
	tok := m.Tokenizer
	var ids []int32
	if bos := tok.BOS(); bos >= 0 && !noBOS {
		ids = append(ids, bos)
	}
	ids = tok.Encode([]byte(prompt), ids)
	if longest := m.Config.MaxSeq; len(ids) > longest {
		return usagef("--prompt: it has %d tokens, and the model's context %d; shorten it", len(ids), longest)
	}
	if len(ids) == 0 {
		return usagef("--prompt: it is empty, and no token begins a text here; give it a word to go on from")
	}
	s.Stop = m.Stop
	for id := int32(0); int(id) < m.Params.Config().Vocab; id++ {
		if id == tok.Mask() || id == tok.BOS() && !slices.Contains(s.Stop, id) || int(id) >= tok.VocabSize() {
			s.Never = append(s.Never, id)
		}
	}
	g, err := transformer.NewGenerator(m.Params, transformer.GeneratorOptions{})
	if err != nil {
		return err
	}
	defer g.Close()
	w := c.OutOrStdout()
	var written []int32
	printed := 0
	show := func(text []byte) {
		if !o.json {
			w.Write(text) // run reports what could not be written
		}
	}
	begun := false
	begin := func() {
		if !begun {
			show([]byte(prompt))
		}
		begun = true
	}
	emit := func(_ int, id int32) {
		begin() // a prompt that is refused is not printed
		// Of the whole continuation only what is new is printed: a token's text may depend on the ones before it.
		written = append(written, id)
		if text := tok.Decode(written); len(text) > printed {
			show(text[printed:])
			printed = len(text)
		}
	}
	out, err := g.Generate(c.Context(), [][]int32{ids}, s, emit)
	if err == nil {
		begin()
	}
	if begun {
		show([]byte{'\n'})
	}
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(w, map[string]any{"prompt": prompt, "text": string(tok.Decode(out[0].IDs)), "ids": out[0].IDs, "reason": out[0].Reason})
	}
	return nil
}
