package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"meap/internal/config"
	"meap/pkg/dataset"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// Opened is a configuration with the tokenizer and the model folder that it names. It is what commands begin with that read data.
type Opened struct {
	Config    *config.Config // as it was given
	Base      *config.Config // the same, model.path naming a model folder where it named a run's output folder
	Tokenizer tokenizer.Tokenizer
}

// Open finds model.path and loads the tokenizer: that of tokenizer.path, the one that tokenizer.train_vocab asks to be learnt, or the
// model folder's own. progress is called while one is learnt, unless it is nil.
func Open(ctx context.Context, c *config.Config, progress func(tokenizer.TrainProgress)) (*Opened, error) {
	o := &Opened{Config: c, Base: c}
	if c.Model.Path != "" {
		dir, err := modelDir(fmt.Sprintf("model.path = %q", c.Model.Path), c.Model.Path)
		if err != nil {
			return nil, err
		}
		base := *c
		base.Model.Path, o.Base = dir, &base
	}
	path, err := tokenizerPath(o.Base)
	if err != nil {
		return nil, err
	}
	if c.Tokenizer.TrainVocab != 0 {
		o.Tokenizer, err = Vocabulary(ctx, c, tokenizer.TrainOptions{VocabSize: c.Tokenizer.TrainVocab, Progress: progress})
		return o, err
	}
	if c.Tokenizer.Path != "" {
		o.Tokenizer, err = NamedTokenizer("tokenizer.path", path)
	} else if o.Tokenizer, err = tokenizer.Load(path); err != nil {
		err = fmt.Errorf("model.path: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// NamedTokenizer loads the tokenizer that a path means which was given by itself, by the key or flag setting. It is misuse to name what
// is none, or none of a kind that can be read; a file that is damaged is no mistake of who named it.
func NamedTokenizer(setting, path string) (tokenizer.Tokenizer, error) {
	tok, err := tokenizer.Load(path)
	if err == nil {
		return tok, nil
	}
	err = fmt.Errorf("%s: %w", setting, err)
	if damaged := (*json.SyntaxError)(nil); errors.As(err, &damaged) {
		return nil, err
	}
	return nil, &config.Error{Problems: []error{err}}
}

// modelDir returns the model folder that a path means, see trainer.ModelDir. It is misuse to name one where there is no model; setting is
// the path as it was given, with its key or flag.
func modelDir(setting, path string) (string, error) {
	dir, err := trainer.ModelDir(path)
	if err != nil {
		err = fmt.Errorf("%s: %w", setting, err)
		if info, statErr := os.Stat(path); statErr == nil && !info.IsDir() {
			err = &config.Error{Problems: []error{err}}
		}
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "config.json")); errors.Is(err, fs.ErrNotExist) && dir == path {
		return "", &config.Error{Problems: []error{fmt.Errorf("%s is no model folder: %w; name one that holds a model, or the output folder of a run that has saved a checkpoint",
			setting, err)}}
	}
	return dir, nil
}

// Vocabulary learns a vocabulary from the training text, or reads what was learnt from it before.
func Vocabulary(ctx context.Context, c *config.Config, t tokenizer.TrainOptions) (tokenizer.Tokenizer, error) {
	if err := needsSources(c); err != nil {
		return nil, err
	}
	t.Threads = c.Trainer.Threads
	return dataset.Vocabulary(ctx, c.Data, dataset.VocabularyOptions{TrainOptions: t, MaxBytes: c.Tokenizer.TrainBytes})
}

// tokenizerPath is where the tokenizer is loaded from, unless it is learnt.
func tokenizerPath(c *config.Config) (string, error) {
	switch {
	case c.Tokenizer.TrainVocab != 0 && c.Model.Path != "":
		return "", &config.Error{Problems: []error{fmt.Errorf("tokenizer.train_vocab = %d: the model of model.path has a vocabulary: set this to 0", c.Tokenizer.TrainVocab)}}
	case c.Tokenizer.Path == "":
		return c.Model.Path, nil
	}
	return c.Tokenizer.Path, nil
}

// VocabSize returns how many ids Model has to make room for, without learning a vocabulary, and without a tokenizer where model.vocab
// says it.
func VocabSize(c *config.Config) (int, error) {
	if c.Model.Vocab != 0 {
		return c.Model.Vocab, nil
	}
	if c.Tokenizer.TrainVocab != 0 {
		_, err := tokenizerPath(c)
		return c.Tokenizer.TrainVocab, err
	}
	o, err := Open(context.Background(), c, nil)
	if err != nil {
		return 0, err
	}
	return o.Tokenizer.VocabSize(), nil
}

// Model resolves the section model.
func (o *Opened) Model() (transformer.Config, error) { return Model(o.Base, o.Tokenizer.VocabSize()) }
