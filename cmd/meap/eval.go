package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/eval"
	"meap/pkg/trainer"
)

func newEval(o *options) *cobra.Command {
	return group("eval", "Measure a trained model", newEvalPerplexity(o), newEvalNeedle(o))
}

// evalFlags are the flags of every evaluation.
type evalFlags struct {
	model, output, device string
	batch, limit          int
}

func (f *evalFlags) bind(c *cobra.Command) {
	c.Flags().StringVarP(&f.model, "model", "m", "", "model folder, or the output folder of a run (its newest checkpoint is taken)")
	c.Flags().StringVarP(&f.output, "output", "o", "", "folder for results.json, report.html and pictures (default MODEL/eval/NAME)")
	c.Flags().StringVar(&f.device, "device", "auto", "where to compute: auto, cpu, cuda or cuda:N")
	c.Flags().IntVar(&f.batch, "batch", 8, "sequences computed at a time")
	c.Flags().IntVar(&f.limit, "limit", 0, "measure only this much (0: all)")
}

// open loads the model and what is known of the run that it comes from.
func (f *evalFlags) open(o *options, name string) (*setup.Trained, *config.Config, error) {
	if f.model == "" {
		return nil, nil, usagef("eval %s needs --model DIR: a model folder, or a run's output folder such as runs/quickstart", name)
	}
	if f.batch < 1 || f.limit < 0 {
		return nil, nil, usagef("--batch must be at least 1 and --limit at least 0")
	}
	if f.output == "" {
		f.output = filepath.Join(f.model, "eval", name)
	}
	run, found, err := setup.RunConfig(f.model)
	if err != nil {
		return nil, nil, err
	}
	if !found {
		run = nil
	}
	t := trainer.DefaultConfig()
	t.Threads, t.CPUISA, t.Device = o.threads, o.cpuISA, f.device
	m, err := setup.OpenModel(f.model, t)
	return m, run, err
}

// finish writes the report and prints it.
func (f *evalFlags) finish(c *cobra.Command, o *options, m *setup.Trained, run *config.Config, r *eval.Report) error {
	r.Model = m.Describe()
	curves, err := setup.Curves(f.model)
	if err != nil {
		return err
	}
	r.Curves = curves
	if run != nil {
		r.Sections = append(r.Sections, runFacts(run))
	}
	if err := r.Write(f.output); err != nil {
		return err
	}
	if o.json {
		if r.Needle != nil {
			return printJSON(c.OutOrStdout(), r.Needle)
		}
		return printJSON(c.OutOrStdout(), r.Perplexity)
	}
	columns, colours := eval.Terminal(os.Stdout)
	if err := r.Print(c.OutOrStdout(), columns, colours); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "report: %s\n", filepath.Join(f.output, eval.PageFile))
	return nil
}

// runFacts are the settings that tell one training run from another.
func runFacts(c *config.Config) eval.Section {
	fact := func(name string, v any) eval.Fact { return eval.Fact{Name: name, Value: fmt.Sprint(v)} }
	return eval.Section{Name: "Training", Facts: []eval.Fact{
		fact("masking.scheme", c.Masking.Scheme), fact("masking.ratio", c.Masking.Ratio), fact("trainer.steps", c.Trainer.Steps),
		fact("tokens per step", c.Trainer.TokensPerStep()), fact("trainer.learning_rate", c.Trainer.LearningRate),
		fact("trainer.dtype", c.Trainer.DType), fact("trainer.seed", c.Trainer.Seed), fact("data.sources", c.Data.Sources),
	}}
}
