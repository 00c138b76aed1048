package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/eval"
	"meap/pkg/trainer"
)

func newEvalPerplexity(o *options) *cobra.Command {
	var f evalFlags
	var text []string
	var seq int
	c := &cobra.Command{
		Use:   "perplexity",
		Short: "Perplexity and bits per byte on held-out text",
		Long: `Perplexity and bits per byte on held-out text.

The text is cut into disjoint windows; every token is predicted once. Without --text it is the
validation split of the run in --model, and the bits per byte of a byte-bigram model counted on the
run's training split are printed beside the model's.`,
		Example: `  meap eval perplexity --model runs/quickstart
  meap eval perplexity --model runs/quickstart --text book.txt --seq 256`,
		RunE: func(c *cobra.Command, _ []string) error {
			models, runs, err := f.find("perplexity")
			if err != nil {
				return err
			}
			if len(models) > 1 {
				return usagef("--model is given %d times: perplexity is measured of one model at a time", len(models))
			}
			run := runs[0]
			m, err := f.open(o, models[0])
			if err != nil {
				return err
			}
			defer m.Close()
			stream, source, bigram, err := perplexityText(c, o, m, run, text)
			if err != nil {
				return err
			}
			b := newBar(c.ErrOrStderr(), int64(stream.Len()), "perplexity")
			cfg := eval.PerplexityConfig{Seq: seq, Batch: f.batch, Limit: f.limit, Prefix: m.Tokenizer.BOS(), Uncounted: []int32{m.Tokenizer.BOS()},
				Progress: func(r eval.PerplexityResult, _ int) { b.set(int64(r.Tokens)) }}
			result, err := eval.Perplexity(c.Context(), m.Scorer(), stream, cfg)
			if err != nil {
				return err
			}
			result.Source, result.ByteBigram = source, bigram
			b.finish("%d tokens", result.Tokens)
			return f.finish(c, o, models, runs, &eval.Report{Title: "Perplexity", Perplexity: &result})
		},
	}
	f.bind(c, false)
	c.Flags().StringArrayVar(&text, "text", nil, "text file to measure on (repeat for more)")
	c.Flags().IntVar(&seq, "seq", 0, "tokens predicted per window (0: the model's longest context)")
	return c
}

// perplexityText opens the text to measure on, and computes what the bigram model makes of it where that is known.
func perplexityText(c *cobra.Command, o *options, m *setup.Trained, run *config.Config, files []string) (eval.Stream, string, float64, error) {
	if len(files) > 0 {
		s, err := setup.Files(files, m.Tokenizer)
		return s, strings.Join(files, ", "), 0, err
	}
	if run == nil {
		return nil, "", 0, usagef("--model is no run's output folder, so there is no validation text: name one with --text FILE")
	}
	set, err := prepareData(c, o, run, m.Tokenizer)
	if err != nil {
		return nil, "", 0, fmt.Errorf("%w; the validation text is that of the run: start meap in the folder that training was started in, or name a text with --text FILE", err)
	}
	state, err := trainer.ReadState(m.Dir)
	if err != nil {
		return nil, "", 0, err
	}
	if state.Data != set.Index.Fingerprint() {
		return nil, "", 0, errors.New("data.sources: the files are not those that the run was trained on, so it may have seen what is held out of them now: name a text with --text FILE")
	}
	if set.Index.Validation == nil {
		return nil, "", 0, usagef("the run held out no text (data.validation and data.validation_fraction): name one with --text FILE")
	}
	train, err := dataset.OpenStream(set.Dir, dataset.Train)
	if err != nil {
		return nil, "", 0, err
	}
	defer train.Close()
	held, err := dataset.OpenStream(set.Dir, dataset.Validation)
	if err != nil {
		return nil, "", 0, err
	}
	model, err := dataset.NewBigramModel(train, m.Tokenizer)
	if err != nil {
		return nil, "", 0, err
	}
	bigram, err := model.BitsPerByte(held, m.Tokenizer)
	return setup.Split(held, m.Tokenizer), fmt.Sprintf("validation split of %d files", held.Info.Files), bigram, err
}
