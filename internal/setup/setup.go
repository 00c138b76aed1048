// Package setup turns a configuration into the parts that commands put to work: tokenizer, model, data, device, training run,
// scorer. Every command makes them here, so that they mean the same everywhere.
package setup

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"meap/internal/config"
	"meap/pkg/dataset"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
	"meap/pkg/transformer"
)

// Model resolves the section model: the sizes of the preset or of the model folder, with those that the section sets itself.
// Where neither says how large the vocabulary is, it is the tokenizer's number of ids, padded.
func Model(c *config.Config, ids int) (transformer.Config, error) {
	m, problem := c.Model, func(format string, args ...any) error {
		return &config.Error{Problems: []error{fmt.Errorf(format, args...)}}
	}
	var t transformer.Config
	var err error
	switch {
	case m.Path != "":
		if t, err = transformer.LoadConfig(m.Path); err != nil {
			return t, fmt.Errorf("model.path: %w", err)
		}
	case m.Preset != "":
		if t, err = transformer.Preset(m.Preset); err != nil {
			return t, problem("model.preset = %q: %v", m.Preset, err)
		}
	case m.Layers == 0 || m.Heads == 0 || m.Dim == 0 || m.FFN == 0:
		return t, problem("model.preset: choose one of %s, or set model.layers, model.heads, model.dim and model.ffn",
			strings.Join(transformer.Presets(), ", "))
	}
	trained := t
	resize(&t, m)
	if m.Path != "" && t != trained {
		return t, changedSizes(m.Path, trained, t)
	}
	if t.Vocab == 0 {
		t.Vocab = transformer.PadVocab(ids)
	}
	if t.MaxSeq == 0 {
		t.MaxSeq = c.Trainer.Seq
	}
	if t.Vocab < ids {
		return t, problem("model.vocab = %d: must be at least the tokenizer's %d ids", t.Vocab, ids)
	}
	if c.Trainer.Seq > t.MaxSeq {
		return t, problem("trainer.seq = %d: must be at most model.max_seq, which is %d", c.Trainer.Seq, t.MaxSeq)
	}
	if err := t.Validate(); err != nil {
		return t, &config.Error{Problems: []error{err}}
	}
	return t, nil
}

// changedSizes is the error about sizes of trained weights that the section model sets otherwise.
func changedSizes(path string, trained, asked transformer.Config) error {
	e := &config.Error{}
	was, is := reflect.ValueOf(trained), reflect.ValueOf(asked)
	for i := range was.NumField() {
		if a, b := was.Field(i).Interface(), is.Field(i).Interface(); a != b {
			key, _, _ := strings.Cut(was.Type().Field(i).Tag.Get("json"), ",")
			e.Problems = append(e.Problems, fmt.Errorf("model.%s = %v: that of the trained weights in %s is %v and cannot be changed", key, b, path, a))
		}
	}
	return e
}

// resize applies the sizes that the section sets, and derives those that follow from them.
func resize(t *transformer.Config, m config.ModelConfig) {
	set := func(dst *int, v int) {
		if v != 0 {
			*dst = v
		}
	}
	headDim := t.HeadDim
	if m.Dim != 0 || m.Heads != 0 {
		headDim = 0 // the preset's no longer follows
	}
	set(&t.Layers, m.Layers)
	if m.Heads != 0 && m.KVHeads == 0 && (t.KVHeads == 0 || m.Heads%t.KVHeads != 0) {
		t.KVHeads = m.Heads
	}
	set(&t.Heads, m.Heads)
	set(&t.KVHeads, m.KVHeads)
	set(&t.Dim, m.Dim)
	set(&t.FFN, m.FFN)
	set(&t.Vocab, m.Vocab)
	set(&t.MaxSeq, m.MaxSeq)
	set(&headDim, m.HeadDim)
	if headDim == 0 && t.Heads > 0 {
		headDim = t.Dim / t.Heads
	}
	t.HeadDim = headDim
	if m.TieEmbeddings != nil {
		t.TieEmbeddings = *m.TieEmbeddings
	}
	if m.QKVBias != nil {
		t.QKVBias = *m.QKVBias
	}
	if m.RopeTheta != 0 {
		t.RopeTheta = m.RopeTheta
	}
	if m.NormEps != 0 {
		t.NormEps = m.NormEps
	}
	if t.RopeTheta == 0 {
		t.RopeTheta = 10000
	}
	if t.NormEps == 0 {
		t.NormEps = 1e-5
	}
}

// Masking makes the policy of the section masking. It is misuse to ask for masks of a tokenizer that has no [MASK].
func Masking(c *config.Config, tok tokenizer.Tokenizer) (masking.Policy, error) {
	p, err := masking.New(c.Masking, tok.Mask(), tok.Special(), c.Trainer.Seed)
	if err != nil {
		return p, &config.Error{Problems: []error{err}}
	}
	return p, nil
}

// Data is a run's prepared text.
type Data struct {
	Set        *dataset.Set
	Collator   *dataset.Collator
	Train      *dataset.Loader
	Validation *dataset.HeldOut // nil where nothing is held out
}

func needsSources(c *config.Config) error {
	if len(c.Data.Sources) > 0 {
		return nil
	}
	return &config.Error{Problems: []error{errors.New("data.sources = []: name at least one file, folder or pattern that holds text")}}
}

// PrepareData tokenises and packs the sources where that has not been done before.
func PrepareData(ctx context.Context, c *config.Config, tok tokenizer.Tokenizer, progress func(dataset.Progress)) (*dataset.Set, error) {
	if err := needsSources(c); err != nil {
		return nil, err
	}
	return dataset.Prepare(ctx, c.Data, tok, dataset.Options{Facts: c.Facts, Workers: c.Trainer.Threads, Progress: progress})
}

// OpenData opens prepared text as a run with this configuration reads it. Close it when done.
func OpenData(c *config.Config, tok tokenizer.Tokenizer, set *dataset.Set) (_ *Data, err error) {
	d := &Data{Set: set}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.Train, err = set.Open(dataset.Train, c.Trainer.Seq, c.Trainer.Seed); err != nil {
		return nil, err
	}
	policy, err := Masking(c, tok)
	if err != nil {
		return nil, err
	}
	if d.Collator, err = dataset.NewCollator(d.Train, policy, c.Trainer.RowsPerStep(), c.Data.DocumentMask); err != nil {
		return nil, err
	}
	if set.Index.Validation != nil {
		held, err := set.Open(dataset.Validation, c.Trainer.Seq, 0)
		if err != nil {
			return nil, err
		}
		d.Validation = dataset.NewHeldOut(held, c.Data.DocumentMask)
	}
	return d, nil
}

// Close unmaps the data.
func (d *Data) Close() {
	if d.Train != nil {
		d.Train.Close()
	}
	if d.Validation != nil {
		d.Validation.Close()
	}
}

// InitialWeights gives the weights that a run starts from: those of model.path, or fresh ones of trainer.seed.
func InitialWeights(c *config.Config, model transformer.Config) (*transformer.Weights, error) {
	if c.Model.Path == "" {
		return transformer.Init(model, c.Trainer.Seed), nil
	}
	w, err := transformer.Load(c.Model.Path)
	if err != nil {
		return nil, fmt.Errorf("model.path: %w", err)
	}
	if w.Config != model {
		return nil, fmt.Errorf("model.path: %s is %+v, the section model asks for %+v; sizes cannot be changed in trained weights", c.Model.Path, w.Config, model)
	}
	return w, nil
}
