package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"meap/internal/setup"
)

func newPretrain(o *options) *cobra.Command {
	var run runFlags
	c := &cobra.Command{
		Use:   "pretrain",
		Short: "Train a model on text by next-token prediction with masked inputs",
		Long: `Train a model on text by next-token prediction with masked inputs (MEAP).

The text is tokenised and packed once and kept below data.cache_dir. The run's output folder holds
config.yaml, metrics.jsonl, tensorboard/ and checkpoints/, each checkpoint a model folder. A run that
was interrupted, killed or stopped by trainer.stop_after goes on from its latest checkpoint when the
same command is given again, with the same losses as if nothing had happened.`,
		Example: `  meap pretrain --config configs/quickstart.yaml
  meap pretrain --config configs/quickstart.yaml --set masking.ratio=0 --output runs/ntp
  meap pretrain --config configs/quickstart.yaml --set data.sources=~/notes/**/*.md --output runs/notes`,
		RunE: func(c *cobra.Command, _ []string) error {
			if run.file == "" && len(run.set) == 0 {
				return usagef("pretrain needs --config FILE; configs/quickstart.yaml is one to start from")
			}
			if run.output == "" {
				run.output = filepath.Join("runs", run.name())
			}
			return pretrain(c, o, &run)
		},
	}
	run.bind(c, "runs/NAME of the configuration file")
	return endingWell(c)
}

func pretrain(c *cobra.Command, o *options, flags *runFlags) error {
	cfg, err := flags.load(c)
	if err != nil {
		return err
	}
	run, err := flags.open(c, cfg)
	if err != nil {
		return err
	}
	defer run.close()
	if _, err := setup.Masking(cfg, run.Tokenizer); err != nil {
		return err
	}
	set, err := prepareData(c, o, cfg, run.Tokenizer)
	if err != nil {
		return err
	}
	data, err := setup.OpenData(cfg, run.Tokenizer, set)
	if err != nil {
		return err
	}
	defer data.Close()
	work, err := run.Pretraining(run.model, data, run.device)
	if err != nil {
		return err
	}
	t := cfg.Trainer
	announce(c.ErrOrStderr(), cfg, run.model, run.device, float64(t.RowsPerStep())*float64(t.LastStep())/float64(data.Train.Rows()),
		fmt.Sprintf("data\t%s tokens for training, in %s", count(float64(data.Train.Len())), data.Set.Dir),
		fmt.Sprintf("masking\t%s, ratio %v", cfg.Masking.Scheme, cfg.Masking.Ratio))
	return flags.train(c, o, work)
}
