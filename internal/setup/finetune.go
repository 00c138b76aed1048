package setup

import (
	"context"
	"os"

	"meap/internal/config"
	"meap/pkg/dataset/dialogue"
	"meap/pkg/graph"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// Dialogues are the data of a fine-tuning run.
type Dialogues struct {
	*dialogue.Set
	Options    dialogue.Options
	Source     *dialogue.Source
	Validation *dialogue.HeldOut // nil where nothing is held out
}

// Dialogues reads the dialogues of data.sources as a run with this configuration trains on them.
func (o *Opened) Dialogues(ctx context.Context) (*Dialogues, error) {
	c, tok := o.Base, o.Tokenizer
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

// Finetuning puts together a run of supervised fine-tuning; output, resume and reporter are the caller's to fill in.
func (o *Opened) Finetuning(model transformer.Config, d *Dialogues, dev graph.Device) (*trainer.Run, error) {
	run, err := o.run(model, dev, "masking")
	if err != nil {
		return nil, err
	}
	run.Source = d.Source
	run.Identity.Data = d.Fingerprint()
	if d.Validation != nil {
		run.Validation = d.Validation
	}
	// The model says what ends an answer and how it is asked.
	template := d.Options.Template
	if end := template.End(); end != o.Tokenizer.EOS() {
		run.Tokens.EOS = append([]int32{end}, run.Tokens.EOS...)
	}
	run.SaveTokenizer = func(dir string) error {
		if err := o.Tokenizer.Save(dir); err != nil {
			return err
		}
		return template.Save(dir)
	}
	return run, nil
}
