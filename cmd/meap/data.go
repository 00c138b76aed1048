package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/tokenizer"
)

func newData(o *options) *cobra.Command {
	return group("data", "Prepare training text and look at it", newDataPrepare(o), newDataInspect(o))
}

func newDataPrepare(o *options) *cobra.Command {
	var cfg configFlags
	c := &cobra.Command{
		Use:   "prepare",
		Short: "Tokenise and pack the text of a configuration",
		Long: `Tokenise and pack the text of a configuration, as pretrain does by itself before it starts.

Files are tokenised in parallel and packed as <s> text </s> into shards below data.cache_dir, in the LITPKDS
format, with an index. Text that was prepared before is used again while its files and the tokenizer are unchanged.`,
		Example: `  meap data prepare --config configs/quickstart.yaml
  meap data prepare --set data.sources=~/books --set data.cache_dir=/scratch/meap`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			tok, err := setup.Tokenizer(conf)
			if err != nil {
				return err
			}
			set, err := prepareData(c, o, conf, tok)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c.OutOrStdout(), map[string]any{"dir": set.Dir, "built": set.Built, "train": set.Index.Train, "validation": set.Index.Validation})
			}
			return nil
		},
	}
	cfg.bind(c)
	return c
}

// prepareData prepares the text with progress on standard error.
func prepareData(c *cobra.Command, o *options, cfg *config.Config, tok tokenizer.Tokenizer) (*dataset.Set, error) {
	w := c.ErrOrStderr()
	b := newBar(w, 0, "data")
	set, err := setup.PrepareData(c.Context(), cfg, tok, func(p dataset.Progress) {
		if b.bar != nil && b.bar.GetMax64() != p.TotalBytes {
			b.bar.ChangeMax64(p.TotalBytes)
		}
		b.set(p.Bytes)
	})
	if err != nil {
		return nil, err
	}
	describe := func(name string, s *dataset.SplitInfo) string {
		return fmt.Sprintf("%s %d files, %s, %s tokens", name, s.Files, size(float64(s.Bytes)), count(float64(s.Tokens)))
	}
	text := describe("training", &set.Index.Train)
	if v := set.Index.Validation; v != nil {
		text += "; " + describe("validation", v)
	}
	if skipped := set.Index.Train.Skipped; skipped != (dataset.Skipped{}) {
		text += "; left out " + skipped.String()
	}
	if !set.Built {
		text += "; prepared before"
	}
	b.finish("%s", text)
	return set, nil
}

func newDataInspect(o *options) *cobra.Command {
	var cfg configFlags
	var step int64
	var rows int
	c := &cobra.Command{
		Use:   "inspect",
		Short: "Show the rows of a training step, decoded, with their masks",
		Example: `  meap data inspect --config configs/quickstart.yaml
  meap data inspect --config configs/quickstart.yaml --step 100 --rows 1 --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			if step < 1 || rows < 1 {
				return usagef("--step and --rows count from 1")
			}
			tok, err := setup.Tokenizer(conf)
			if err != nil {
				return err
			}
			set, err := prepareData(c, o, conf, tok)
			if err != nil {
				return err
			}
			data, err := setup.OpenData(conf, tok, set)
			if err != nil {
				return err
			}
			defer data.Close()
			var b dataset.Batch
			if err := data.Collator.Collate(step, 0, min(rows, conf.Trainer.RowsPerStep()), &b); err != nil {
				return err
			}
			for _, row := range dataset.Inspect(&b, tok) {
				if o.json {
					if err := printJSON(c.OutOrStdout(), row); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintln(c.OutOrStdout(), row)
			}
			return nil
		},
	}
	cfg.bind(c)
	c.Flags().Int64Var(&step, "step", 1, "optimiser step, from 1")
	c.Flags().IntVar(&rows, "rows", 2, "rows to show")
	return c
}
