package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/pkg/dataset"
	"meap/pkg/dataset/facts"
	"meap/pkg/eval"
)

const (
	// plantedNeedles is the value of --needles that asks for facts of the form that the run was trained on.
	plantedNeedles = "planted"
	// plantedSamples is how many of them are asked for at each length and depth.
	plantedSamples = 20
)

// plantsFacts reports whether a run's training text had facts planted into it.
func plantsFacts(run *config.Config) bool { return run != nil && run.Facts.PerDocument > 0 }

// plant makes the grid one of planted facts that the run has never seen, each with others beside it, in held-out text: as the run's
// documents are, but for the text that nobody has asked anything about. What flags set stays.
func (f *needleFlags) plant(c *cobra.Command, name string, run *config.Config) error {
	if !plantsFacts(run) {
		return usagef("--needles planted: %s is not the output folder of a run with facts.per_document above 0, so there is no form of facts that it knows", name)
	}
	unset := func(flag string) bool { return !c.Flags().Changed(flag) }
	if f.cfg.Chat != "" || f.template != "" {
		return usagef("--needles planted: they are asked for as in training, without --chat and --template")
	}
	if f.distractors < -1 || f.distractors >= facts.MaxPerDocument {
		return usagef("--distractors %d: from 0 to %d, or -1 for as many as training documents have", f.distractors, facts.MaxPerDocument-1)
	}
	if f.distractors < 0 {
		f.distractors = run.Facts.PerDocument - 1
	}
	if unset("samples") {
		f.cfg.Samples = plantedSamples
	}
	if f.cfg.Samples < 1 || f.cfg.Samples > eval.MaxSamples {
		return usagef("--samples %d: from 1 to %d", f.cfg.Samples, eval.MaxSamples)
	}
	prompts := f.cfg.Samples * len(f.cfg.Depths) * max(1, len(f.cfg.Lengths))
	// After a training document's last answer come the end of its line and of the document: an answer nearer to the end of the row
	// than that would stand where no text has one, and a model knows that none does.
	const ending = len("\n") + 1
	f.cfg.Cases, f.cfg.Template = nil, "{context}{question}{answer}"
	for _, k := range (facts.Planter{Config: run.Facts}).Cases(prompts, f.distractors, f.cfg.Seed) {
		f.cfg.Cases = append(f.cfg.Cases, eval.NeedleCase{Needles: k.Lines, Question: k.Question, Answer: k.Answer})
		f.cfg.MaxNew = max(f.cfg.MaxNew, len(k.Question)-len(strings.TrimRight(k.Question, " "))+len(k.Answer)+ending)
	}
	if unset("texts") {
		f.cfg.Texts = prompts
	}
	if unset("exact") && unset("buffer") {
		f.cfg.Exact = true
	}
	if unset("boundary") {
		f.cfg.Boundary = eval.BoundaryLine // where training documents have them
	}
	if unset("metric") {
		f.metric = string(eval.MetricExact)
	}
	return nil
}

// findHaystack lists the files of --haystack, or of the text that the run was trained on; for planted needles, of what was held out.
func (f *needleFlags) findHaystack(run *config.Config, planted bool) (*eval.Haystack, error) {
	if planted && f.haystack == "" {
		files, err := dataset.HeldOutFiles(run.Data)
		if err != nil {
			return nil, fmt.Errorf("%w; the haystack is the run's held-out text: start meap in the folder that training was started in, or name a text with --haystack", err)
		}
		if len(files) == 0 {
			return nil, usagef("the run held out no text files (data.validation and data.validation_fraction), so there is no new text to hide a needle in: name one with --haystack")
		}
		return eval.NewHaystack("the held-out files of the run", files, f.cfg.Seed), nil
	}
	if f.haystack == "" {
		var err error
		if f.haystack, err = defaultHaystack(run); err != nil {
			return nil, err
		}
	}
	hay, err := eval.FindHaystack(f.haystack, f.cfg.Seed)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return hay, nil
}
