package setup

import (
	"meap/internal/config"
	"meap/pkg/graph"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// newRun puts together what training runs have in common. The rows that it trains on, the weights
// that it starts from, output, resume and reporter are left open.
func newRun(c *config.Config, model transformer.Config, tok tokenizer.Tokenizer, dev graph.Device) (*trainer.Run, error) {
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
			Config:    config.Flatten(c),
		},
		SaveTokenizer:  tok.Save,
		Tokens:         special,
		ResolvedConfig: resolved,
		Reporter:       trainer.Discard,
	}, nil
}

// Pretraining puts together a run of masked next-token prediction; output, resume and reporter are the caller's to fill in. c is the
// configuration as it was given, base the same with a model folder where model.path named a run (BaseModel).
func Pretraining(c, base *config.Config, model transformer.Config, tok tokenizer.Tokenizer, data *Data, dev graph.Device) (*trainer.Run, error) {
	run, err := newRun(c, model, tok, dev)
	if err != nil {
		return nil, err
	}
	run.Initial = func() (*transformer.Weights, error) { return InitialWeights(base, model) }
	run.Source = data.Collator
	run.Identity.Data = data.Set.Index.Fingerprint()
	run.Identity.RowsPerEpoch = data.Train.Rows()
	if data.Validation != nil { // a nil *HeldOut would be a Validation that is not nil
		run.Validation = data.Validation
	}
	return run, nil
}
