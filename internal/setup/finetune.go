package setup

import (
	"context"
	"fmt"
	"os"

	"meap/internal/config"
	"meap/pkg/dataset/dialogue"
	"meap/pkg/graph"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// BaseModel returns the configuration with model.path naming a model folder where it named a run's output folder: the run's newest
// checkpoint.
func BaseModel(c *config.Config) (*config.Config, error) {
	if c.Model.Path == "" {
		return nil, &config.Error{Problems: []error{fmt.Errorf(`model.path = "": name the folder of the model that is fine-tuned, with --model DIR`)}}
	}
	dir, err := trainer.ModelDir(c.Model.Path)
	if err != nil {
		return nil, fmt.Errorf("model.path: %w", err)
	}
	base := *c
	base.Model.Path = dir
	return &base, nil
}

// Dialogues are the data of a fine-tuning run.
type Dialogues struct {
	*dialogue.Set
	Options    dialogue.Options
	Source     *dialogue.Source
	Validation *dialogue.HeldOut // nil where nothing is held out
}

// OpenDialogues reads the dialogues of data.sources as a run with this configuration trains on them. model.path must be a model folder.
func OpenDialogues(ctx context.Context, c *config.Config, tok tokenizer.Tokenizer) (*Dialogues, error) {
	template, err := Template(c, tok)
	if err != nil {
		return nil, err
	}
	policy, err := masking.NewTargets(c.SFT.Ratio, c.SFT.MinTarget, tok.Mask(), c.Trainer.Seed)
	if err != nil {
		return nil, &config.Error{Problems: []error{err}}
	}
	d := &Dialogues{Options: dialogue.Options{Config: c.SFT, Template: template, Policy: policy, Seq: c.Trainer.Seq, Workers: c.Trainer.Threads}}
	if d.Set, err = dialogue.Load(ctx, c.Data, d.Options); err != nil {
		return nil, err
	}
	if d.Source, err = dialogue.NewSource(d.Train, d.Options, c.Trainer.RowsPerStep(), c.Trainer.Seed); err != nil {
		return nil, &config.Error{Problems: []error{err}}
	}
	if len(d.Set.Validation) > 0 {
		d.Validation = dialogue.NewHeldOut(d.Set.Validation, d.Options)
	}
	return d, nil
}

// Template loads sft.template. A model's own is looked for where the tokenizer is from.
func Template(c *config.Config, tok tokenizer.Tokenizer) (*dialogue.Template, error) {
	dir := c.Model.Path
	if info, err := os.Stat(c.Tokenizer.Path); err == nil && info.IsDir() {
		dir = c.Tokenizer.Path
	}
	template, err := dialogue.LoadTemplate(c.SFT.Template, dir, tok)
	if err != nil {
		return nil, &config.Error{Problems: []error{err}}
	}
	return template, nil
}

// Finetuning puts together a run of supervised fine-tuning; output, resume and reporter are the caller's to fill in. c is the
// configuration as it was given, base what BaseModel made of it.
func Finetuning(c, base *config.Config, model transformer.Config, tok tokenizer.Tokenizer, d *Dialogues, dev graph.Device) (*trainer.Run, error) {
	run, err := newRun(c, model, tok, dev)
	if err != nil {
		return nil, err
	}
	run.Initial = func() (*transformer.Weights, error) { return InitialWeights(base, model) }
	run.Source = d.Source
	run.Identity.Data = d.Fingerprint()
	if d.Validation != nil {
		run.Validation = d.Validation
	}
	// The model says what ends an answer and how it is asked.
	template := d.Options.Template
	if end := template.End(); end != tok.EOS() {
		run.Tokens.EOS = append([]int32{end}, run.Tokens.EOS...)
	}
	run.SaveTokenizer = func(dir string) error {
		if err := tok.Save(dir); err != nil {
			return err
		}
		return template.Save(dir)
	}
	return run, nil
}
