package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"meap/internal/setup"
	"meap/pkg/trainer"
)

func newPretrain(o *options) *cobra.Command {
	var cfg configFlags
	var output, resume string
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
			if cfg.file == "" && len(cfg.set) == 0 {
				return usagef("pretrain needs --config FILE; configs/quickstart.yaml is one to start from")
			}
			if output == "" {
				output = filepath.Join("runs", cfg.name())
			}
			return pretrain(c, o, &cfg, output, resume)
		},
	}
	cfg.bind(c)
	c.Flags().StringVarP(&output, "output", "o", "", "folder of the run (default runs/NAME of the configuration file)")
	c.Flags().StringVar(&resume, "resume", trainer.ResumeAuto, "auto: continue the run in --output, or start one; off: only start; or a checkpoint's folder")
	c.Flags().String("device", "auto", "where to train: auto, cpu, cuda or cuda:N")
	cfg.flag(c, "device", "trainer.device")
	return c
}

func pretrain(c *cobra.Command, o *options, flags *configFlags, output, resume string) error {
	cfg, err := flags.load(c)
	if err != nil {
		return err
	}
	tok, err := setup.Tokenizer(cfg)
	if err != nil {
		return err
	}
	model, err := setup.Model(cfg, tok)
	if err != nil {
		return err
	}
	// What can be refused is refused before the data is prepared.
	plan, err := trainer.PlanMemory(model, cfg.Trainer)
	if err != nil {
		return err
	}
	if err := setup.CheckMemory(plan); err != nil {
		return err
	}
	if err := trainer.CheckResume(output, resume); err != nil {
		return err
	}
	dev, closeDevice, err := setup.Device(cfg.Trainer)
	if err != nil {
		return err
	}
	defer closeDevice()
	set, err := prepareData(c, o, cfg, tok)
	if err != nil {
		return err
	}
	data, err := setup.OpenData(cfg, tok, set)
	if err != nil {
		return err
	}
	defer data.Close()
	run, err := setup.Pretraining(cfg, model, tok, data, dev)
	if err != nil {
		return err
	}
	run.Output, run.Resume = output, resume
	if o.json {
		run.Reporter = trainer.NewJSONReporter(c.OutOrStdout(), c.ErrOrStderr())
	} else {
		run.Reporter = trainer.NewProgress(c.ErrOrStderr())
	}
	announce(c.ErrOrStderr(), cfg, model, data, dev)
	if err := run.Train(c.Context()); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "done: %s\n", output)
	return nil
}
