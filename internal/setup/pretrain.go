package setup

import (
	"maps"
	"strings"

	"meap/internal/config"
	"meap/pkg/graph"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// run puts together what training runs have in common. The rows that it trains on, output, resume and reporter are left open. unused
// is the section that this kind of run does not read, whose keys may change when it is resumed.
func (o *Opened) run(model transformer.Config, dev graph.Device, unused string) (*trainer.Run, error) {
	c, tok := o.Config, o.Tokenizer
	used := config.Flatten(c)
	maps.DeleteFunc(used, func(key string, _ any) bool { return strings.HasPrefix(key, unused+".") })
	resolved, err := config.Dump(c)
	if err != nil {
		return nil, err
	}
	special := transformer.SpecialTokens{BOS: tok.BOS()}
	if eos := tok.EOS(); eos >= 0 {
		special.EOS = []int32{eos}
	}
	return &trainer.Run{
		Config: c.Trainer,
		Device: dev,
		Model:  model,
		Identity: trainer.State{
			Seed:      c.Trainer.Seed,
			Tokenizer: tok.Fingerprint(),
			Config:    used,
		},
		Initial:        func() (*transformer.Weights, error) { return InitialWeights(o.Base, model) },
		SaveTokenizer:  tok.Save,
		Tokens:         special,
		ResolvedConfig: resolved,
		Reporter:       trainer.Discard,
	}, nil
}

// Pretraining puts together a run of masked next-token prediction; output, resume and reporter are the caller's to fill in.
func (o *Opened) Pretraining(model transformer.Config, data *Data, dev graph.Device) (*trainer.Run, error) {
	run, err := o.run(model, dev, "sft")
	if err != nil {
		return nil, err
	}
	run.Source = data.Collator
	run.Identity.Data = data.Set.Index.Fingerprint()
	run.Identity.RowsPerEpoch = data.Train.Rows()
	if data.Validation != nil { // a nil *HeldOut would be a Validation that is not nil
		run.Validation = data.Validation
	}
	return run, nil
}
