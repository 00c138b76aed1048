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
validation split of the run in --model, and a bigram model of tokens, counted on the run's training split
with interpolated Kneser-Ney smoothing, is measured on the same tokens and printed beside the model.`,
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
			if longest := models[0].Config.MaxSeq; seq < 0 || seq > longest {
				return usagef("--seq %d: the model takes 1 to %d tokens (0: so many)", seq, longest)
			}
			run := runs[0]
			m, err := f.open(o, models[0])
			if err != nil {
				return err
			}
			defer m.Close()
			t, err := openText(c, o, m, run, text)
			if err != nil {
				return err
			}
			b := newBar(c.ErrOrStderr(), int64(t.Len()), "perplexity")
			prefix := m.Tokenizer.BOS()
			if prefix < 0 {
				prefix = m.Tokenizer.EOS()
			}
			cfg := eval.PerplexityConfig{Seq: seq, Batch: f.batch, Limit: f.limit, Prefix: prefix, Uncounted: []int32{dataset.DocumentBOS(m.Tokenizer)},
				Bigram: t.bigram, Progress: func(r eval.PerplexityResult, _ int) { b.set(int64(r.Tokens)) }}
			result, err := eval.Perplexity(c.Context(), m.Scorer(), t, cfg)
			if err != nil {
				return err
			}
			result.Source = t.source
			b.finish("%d tokens", result.Tokens)
			return f.finish(c, o, models, runs, &eval.Report{Title: "Perplexity", Perplexity: &result})
		},
	}
	f.bind(c, false)
	c.Flags().StringArrayVar(&text, "text", nil, "text file to measure on (repeat for more)")
	c.Flags().IntVar(&seq, "seq", 0, "tokens predicted per window (0: the model's longest context)")
	return endingWell(c)
}

// perplexityText is what is measured, and with what it is compared.
type perplexityText struct {
	eval.Stream
	source string
	bigram func(before, id int32) float64 // nil where no training text is known
}

// openText opens the files, or what the run of the model held out and a bigram model of what it was trained on.
func openText(c *cobra.Command, o *options, m *setup.Trained, run *config.Config, files []string) (*perplexityText, error) {
	if len(files) > 0 {
		s, err := setup.Files(files, m.Tokenizer)
		return &perplexityText{Stream: s, source: strings.Join(files, ", ")}, err
	}
	if run == nil {
		return nil, usagef("--model is no run's output folder, so there is no validation text: name one with --text FILE")
	}
	set, err := prepareData(c, o, run, m.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("%w; the validation text is that of the run: start meap in the folder that training was started in, or name a text with --text FILE", err)
	}
	state, err := trainer.ReadState(m.Dir)
	if err != nil {
		return nil, err
	}
	if state.Data != set.Index.Fingerprint() {
		return nil, errors.New("data.sources: the files are not those that the run was trained on, so it may have seen what is held out of them now: name a text with --text FILE")
	}
	if set.Index.Validation == nil {
		return nil, usagef("the run held out no text (data.validation and data.validation_fraction): name one with --text FILE")
	}
	train, err := dataset.OpenStream(set.Dir, dataset.Train)
	if err != nil {
		return nil, err
	}
	defer train.Close()
	held, err := dataset.OpenStream(set.Dir, dataset.Validation)
	if err != nil {
		return nil, err
	}
	bigram, err := dataset.NewBigramModel(train)
	if err != nil {
		return nil, err
	}
	return &perplexityText{setup.Split(held, m.Tokenizer), fmt.Sprintf("validation split of %d files", held.Info.Files), bigram.Nats}, nil
}
