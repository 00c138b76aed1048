package setup

import (
	"meap/internal/config"
	"meap/pkg/graph"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// Pretraining puts together a run of masked next-token prediction; output, resume and reporter are the caller's to fill in.
func Pretraining(c *config.Config, model transformer.Config, tok tokenizer.Tokenizer, data *Data, dev graph.Device) (*trainer.Run, error) {
	resolved, err := config.Dump(c)
	if err != nil {
		return nil, err
	}
	run := &trainer.Run{
		Config:  c.Trainer,
		Device:  dev,
		Model:   model,
		Initial: func() (*transformer.Weights, error) { return InitialWeights(c, model) },
		Source:  data.Collator,
		Identity: trainer.State{
			Seed:         c.Trainer.Seed,
			Tokenizer:    tok.Fingerprint(),
			Data:         data.Set.Index.Fingerprint(),
			Config:       config.Flatten(c),
			RowsPerEpoch: data.Train.Rows(),
		},
		SaveTokenizer:  tok.Save,
		Tokens:         transformer.SpecialTokens{BOS: tok.BOS(), EOS: []int32{tok.EOS()}},
		ResolvedConfig: resolved,
		Reporter:       trainer.Discard,
	}
	if data.Validation != nil { // a nil *HeldOut would be a Validation that is not nil
		run.Validation = data.Validation
	}
	return run, nil
}
