package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/pkg/dataset"
	"meap/pkg/eval"
)

func newEvalNeedle(o *options) *cobra.Command {
	var f evalFlags
	usual := eval.DefaultNeedle()
	cfg := usual
	var haystack, boundary string
	var lengths []int
	var depths []float64
	var seed uint64
	c := &cobra.Command{
		Use:   "needle",
		Short: "Needle in a haystack: does the model find a sentence in a long text?",
		Long: `Needle in a haystack: a sentence is hidden at several depths of texts of several lengths, then asked for.

Small models do not answer, so what is shown is how much more likely the needle makes the answer:
the log-likelihood of the answer with the needle in the context minus that without it, in nats.`,
		Example: `  meap eval needle --model runs/quickstart
  meap eval needle --model runs/quickstart --haystack essays/ --lengths 256,384,512 --depths 0,50,100`,
		RunE: func(c *cobra.Command, _ []string) error {
			m, run, err := f.open(o, "needle")
			if err != nil {
				return err
			}
			defer m.Close()
			if haystack == "" {
				if haystack, err = defaultHaystack(run); err != nil {
					return err
				}
			}
			hay, err := eval.FindHaystack(haystack, seed)
			if err != nil {
				return err
			}
			maxSeq := m.Params.Config().MaxSeq
			cfg.Lengths, cfg.Boundary, cfg.Batch, cfg.Limit = lengths, eval.Boundary(boundary), f.batch, f.limit
			if len(depths) > 0 {
				cfg.Depths = depths
			}
			if len(lengths) == 0 {
				lo, hi := cfg.Bounds(m.Tokenizer, maxSeq)
				if lo > hi {
					return usagef("the prompt alone does not fit into the model's %d tokens: choose a shorter --needle, --question and --answer, or a smaller --buffer", maxSeq)
				}
				cfg.Lengths = eval.LinspaceLengths(lo, hi, 6)
			}
			b := newBar(c.ErrOrStderr(), int64(len(cfg.Lengths)*len(cfg.Depths)), "needle")
			cells := 0
			cfg.Progress = func(done, _ int) { cells = done; b.set(int64(done)) }
			needle, err := eval.NewNeedle(cfg, m.Tokenizer, hay, maxSeq)
			if err != nil {
				return err
			}
			result, err := needle.Run(c.Context(), m.Scorer())
			if err != nil {
				return err
			}
			b.finish("%d cells", cells)
			return f.finish(c, o, m, run, &eval.Report{Title: "Needle in a haystack", Needle: result})
		},
	}
	f.bind(c)
	fl := c.Flags()
	fl.StringVar(&haystack, "haystack", "", "file or folder with the text to hide the needle in (default: the text the run was trained on)")
	fl.IntSliceVar(&lengths, "lengths", nil, "context lengths in tokens (default: six that the model takes)")
	fl.Float64SliceVar(&depths, "depths", nil, "places of the needle, percent of the document (default: 0, 10, ... 100)")
	fl.StringVar(&cfg.Needle, "needle", usual.Needle, "sentence to hide")
	fl.StringVar(&cfg.Question, "question", usual.Question, "question after the document")
	fl.StringVar(&cfg.Answer, "answer", usual.Answer, "answer whose likelihood is measured")
	fl.IntVar(&cfg.Buffer, "buffer", usual.Buffer, "part of the length kept free for question and answer")
	fl.StringVar(&boundary, "boundary", string(usual.Boundary), "where a needle may stand: after a sentence, line or token, or auto")
	fl.Uint64Var(&seed, "seed", 0, "shuffles the haystack's files (0: by name)")
	return c
}

// defaultHaystack is a folder of the run's training text: what its first source matches begins with.
func defaultHaystack(run *config.Config) (string, error) {
	if run == nil || len(run.Data.Sources) == 0 {
		return "", usagef("--model is no run's output folder, so there is no text to hide a needle in: name one with --haystack")
	}
	path, err := dataset.ExpandPath(run.Data.Sources[0])
	if err != nil {
		return "", err
	}
	for strings.ContainsAny(path, "*?[") {
		path = filepath.Dir(path)
	}
	return path, nil
}
