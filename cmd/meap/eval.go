package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

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
	models                      []string
	output, device, ropeScaling string
	batch, limit                int
}

// bind adds the flags to a command that evaluates one model, or several.
func (f *evalFlags) bind(c *cobra.Command, several bool) {
	model := "model folder, or the output folder of a run (its newest checkpoint is taken)"
	if several {
		model += "; repeat it to compare"
	}
	c.Flags().StringArrayVarP(&f.models, "model", "m", nil, model)
	c.Flags().StringVarP(&f.output, "output", "o", "", "folder for results.json, report.html and pictures (default MODEL/eval/NAME)")
	c.Flags().StringVar(&f.device, "device", "auto", "where to compute: auto, cpu, cuda or cuda:N")
	c.Flags().IntVar(&f.batch, "batch", 8, "sequences computed at a time")
	c.Flags().IntVar(&f.limit, "limit", 0, "measure only this much (0: all)")
	c.Flags().StringVar(&f.ropeScaling, "rope-scaling", "", "scale positions for contexts longer than the model's: linear:F, dynamic:F, yarn:F or llama3:F, F times as long (default: as config.json says)")
}

// find looks at the models and what is known of the runs that they come from, nil for those that come from none.
func (f *evalFlags) find(name string) ([]*setup.ModelFolder, []*config.Config, error) {
	if len(f.models) == 0 {
		return nil, nil, usagef("eval %s needs --model DIR: a model folder, or a run's output folder such as runs/quickstart", name)
	}
	if f.batch < 1 || f.limit < 0 {
		return nil, nil, usagef("--batch must be at least 1 and --limit at least 0")
	}
	if f.output == "" {
		f.output = filepath.Join(f.models[0], "eval", name)
	}
	var models []*setup.ModelFolder
	var runs []*config.Config
	for i, path := range f.models {
		if slices.Contains(f.models[:i], path) {
			return nil, nil, usagef("--model %s is given twice", path)
		}
		run, found, err := setup.RunConfig(path)
		if err != nil {
			return nil, nil, err
		}
		if !found {
			run = nil
		}
		m, err := setup.FindModel(path, f.ropeScaling)
		if err != nil {
			return nil, nil, err
		}
		models, runs = append(models, m), append(runs, run)
	}
	return models, runs, nil
}

// open loads a model.
func (f *evalFlags) open(o *options, m *setup.ModelFolder) (*setup.Trained, error) {
	t := trainer.DefaultConfig()
	t.Threads, t.CPUISA, t.Device = o.threads, o.cpuISA, f.device
	return m.Open(t)
}

// finish prints the results and writes the report, in this order: what was computed must not be lost to a folder that cannot be
// written.
func (f *evalFlags) finish(c *cobra.Command, o *options, models []*setup.ModelFolder, runs []*config.Config, r *eval.Report) error {
	for i, m := range models {
		r.Models = append(r.Models, m.Describe())
		if runs[i] != nil {
			section := runFacts(runs[i])
			if len(models) > 1 {
				section.Name += " of " + m.Name
			}
			r.Sections = append(r.Sections, section)
		}
	}
	printed := printReport(c.OutOrStdout(), o, r)
	if len(models) == 1 {
		curves, err := setup.Curves(f.models[0])
		if err != nil {
			return errors.Join(printed, err)
		}
		r.Curves = curves
	}
	if err := r.Write(f.output); err != nil {
		return errors.Join(printed, err)
	}
	if !o.json {
		fmt.Fprintf(c.ErrOrStderr(), "report: %s\n", filepath.Join(f.output, eval.PageFile))
	}
	return printed
}

// printReport writes the results for people, or for programs.
func printReport(w io.Writer, o *options, r *eval.Report) error {
	if !o.json {
		columns, colours := eval.Terminal(os.Stdout)
		return r.Print(w, columns, colours)
	}
	for _, n := range r.Needle {
		if err := printJSON(w, n); err != nil {
			return err
		}
	}
	if r.Perplexity != nil {
		return printJSON(w, r.Perplexity)
	}
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
