package main

import (
	"fmt"
	"time"

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

Sources are files, folders and patterns: plain text and source code, .jsonl and .parquet (data.text_field names
the field that holds the text), each also as .gz or .zst (Parquet as it is), LITPKDS shards of the reference
implementation (.bin), and - for standard input.

Text is tokenised in parallel and packed as <s> text </s> into shards below data.cache_dir, in the LITPKDS
format, with an index. Text that was prepared before is used again while its files and the tokenizer are
unchanged; an interrupted preparation is taken up again where it was, file by file.`,
		Example: `  meap data prepare --config configs/quickstart.yaml
  meap data prepare --set data.sources=~/books --set data.cache_dir=/scratch/meap
  meap data prepare --set 'data.sources=[~/c4/*.json.gz, ~/web/*.parquet]' --set tokenizer.path=~/llama2
  zcat notes.jsonl.gz | meap data prepare --set data.sources=- --set data.text_field=body.text`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			opened, err := open(c, conf)
			if err != nil {
				return err
			}
			set, err := prepareData(c, o, conf, opened.Tokenizer)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c.OutOrStdout(), map[string]any{"dir": set.Dir, "built": set.Built, "reused_files": set.Reused, "train": set.Index.Train, "validation": set.Index.Validation})
			}
			return nil
		},
	}
	cfg.bind(c)
	return endingWell(c)
}

// progressInterval is the time between lines where no terminal shows a bar.
const progressInterval = 10 * time.Second

// prepareData prepares the text with progress on standard error.
func prepareData(c *cobra.Command, o *options, cfg *config.Config, tok tokenizer.Tokenizer) (*dataset.Set, error) {
	w := c.ErrOrStderr()
	b := newBar(w, 0, "data")
	printed := time.Now()
	set, err := setup.PrepareData(c.Context(), cfg, tok, func(p dataset.Progress) {
		if b.bar != nil && b.bar.GetMax64() != p.TotalBytes {
			b.bar.ChangeMax64(p.TotalBytes)
		}
		b.set(p.Bytes)
		if b.bar == nil && time.Since(printed) >= progressInterval {
			printed = time.Now()
			left := time.Duration(float64(time.Since(b.start)) * float64(p.TotalBytes-p.Bytes) / float64(max(1, p.Bytes)))
			fmt.Fprintf(w, "data: %d of %d files, %s of %s, %s tokens, about %v left\n", p.Files, p.TotalFiles,
				size(float64(p.Bytes)), size(float64(p.TotalBytes)), count(float64(p.Tokens)), left.Round(time.Second))
		}
	})
	if err != nil {
		return nil, err
	}
	describe := func(name string, s *dataset.SplitInfo) string {
		return fmt.Sprintf("%s %d files, %d documents, %s, %s tokens", name, s.Files, s.Documents, size(float64(s.Bytes)), count(float64(s.Tokens)))
	}
	text := describe("training", &set.Index.Train)
	skipped := set.Index.Train.Skipped
	if v := set.Index.Validation; v != nil {
		text += "; " + describe("validation", v)
		text += fmt.Sprintf("; in all %s, %s tokens", size(float64(set.Index.Train.Bytes+v.Bytes)), count(float64(set.Index.Train.Tokens+v.Tokens)))
		skipped.Add(v.Skipped)
	}
	if skipped != (dataset.Skipped{}) {
		text += "; left out " + skipped.String()
	}
	switch {
	case !set.Built:
		text += "; prepared before"
	case set.Reused > 0:
		text += fmt.Sprintf("; %d files were done before the interruption", set.Reused)
	}
	b.finish("%s", text)
	if v := set.Index.Validation; v != nil && len(cfg.Data.Validation) == 0 && 2*v.Bytes > set.Index.Train.Bytes {
		fmt.Fprintf(w, "data: validation_fraction = %v holds out whole files, and of these few it is much more; name what is held out with data.validation, "+
			"or join the files\n", cfg.Data.ValidationFraction)
	}
	return set, nil
}

func newDataInspect(o *options) *cobra.Command {
	var cfg configFlags
	var step int64
	var rows, tokens int
	var tokenizerPath string
	c := &cobra.Command{
		Use:   "inspect [FILE.bin ...]",
		Args:  cobra.ArbitraryArgs,
		Short: "Show the rows of a training step, decoded, with their masks; or what a LITPKDS file holds",
		Long: `Show the rows of a training step, decoded, with their masks.

With files: what these LITPKDS files hold, whether meap or the reference implementation has written them.`,
		Example: `  meap data inspect --config configs/quickstart.yaml
  meap data inspect --config configs/quickstart.yaml --step 100 --rows 1 --json
  meap data inspect train_0000000000.bin --tokenizer ~/llama2`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return inspectShards(c, o, args, tokenizerPath, tokens)
			}
			if step < 1 || rows < 1 {
				return usagef("--step and --rows count from 1")
			}
			return inspectStep(c, o, &cfg, step, rows)
		},
	}
	cfg.bind(c)
	c.Flags().Int64Var(&step, "step", 1, "optimiser step, from 1")
	c.Flags().IntVar(&rows, "rows", 2, "rows to show")
	c.Flags().IntVar(&tokens, "tokens", 256, "tokens of a FILE.bin to show")
	c.Flags().StringVar(&tokenizerPath, "tokenizer", "", "folder or tokenizer.json with which a FILE.bin was made (none: ids only)")
	return endingWell(c)
}

// inspectStep shows rows of a training step.
func inspectStep(c *cobra.Command, o *options, cfg *configFlags, step int64, rows int) error {
	conf, err := cfg.load(c)
	if err != nil {
		return err
	}
	if last := conf.Trainer.Steps; step > last {
		return usagef("--step %d: the run has %d (trainer.steps)", step, last)
	}
	opened, err := open(c, conf)
	if err != nil {
		return err
	}
	tok := opened.Tokenizer
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
		if err := show(c, o, row); err != nil {
			return err
		}
	}
	return nil
}

// inspectShards shows what LITPKDS files hold.
func inspectShards(c *cobra.Command, o *options, files []string, tokenizerPath string, tokens int) error {
	var tok tokenizer.Tokenizer
	if tokenizerPath != "" {
		var err error
		if tok, err = setup.NamedTokenizer("--tokenizer", tokenizerPath); err != nil {
			return err
		}
	}
	for _, file := range files {
		shard, err := dataset.InspectShard(file, tok, tokens)
		if err != nil {
			return config.Misnamed(file, err)
		}
		if err := show(c, o, shard); err != nil {
			return err
		}
	}
	return nil
}

// show prints for people or as JSON.
func show(c *cobra.Command, o *options, v fmt.Stringer) error {
	if o.json {
		return printJSON(c.OutOrStdout(), v)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), v)
	return err
}
