package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/tokenizer"
)

func newTokenizerTrain(o *options) *cobra.Command {
	var cfg configFlags
	var output string
	options := tokenizer.TrainOptions{}
	c := &cobra.Command{
		Use:   "train [FILE or FOLDER or PATTERN ...]",
		Args:  cobra.ArbitraryArgs,
		Short: "Learn a byte-level BPE vocabulary",
		Long: `Learn a byte-level BPE vocabulary from the training text of a configuration or, with files, folders or patterns,
from all of these.

The vocabulary has the 256 bytes, <s>, </s>, [MASK] and one token for each merge of the most frequent pair, so
it can spell any text. It is written as tokenizer.json and tokenizer_config.json, which Hugging Face tools read;
set tokenizer.path to their folder. The same text gives the same vocabulary, whatever --threads is.

tokenizer.train_bytes bounds the text that is read, spread over all files. Training can do this by itself: with
tokenizer.train_vocab in its configuration the vocabulary is learnt before the text is tokenised.`,
		Example: `  meap tokenizer train --config configs/quickstart.yaml --vocab-size 4096 --output tokenizers/go
  meap tokenizer train '~/books/**/*.txt' --vocab-size 32000 --output tokenizers/books`,
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usagef("train needs --output DIR")
			}
			if options.VocabSize < tokenizer.MinVocabSize || options.VocabSize > tokenizer.MaxVocabSize || options.MinFrequency < 1 {
				return usagef("--vocab-size must be from %d to %d, and --min-frequency at least 1", tokenizer.MinVocabSize, tokenizer.MaxVocabSize)
			}
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				conf.Data.Sources, conf.Data.Validation, conf.Data.ValidationFraction = args, nil, 0
			}
			if !c.Flags().Changed("vocab-size") && conf.Tokenizer.TrainVocab != 0 {
				options.VocabSize = conf.Tokenizer.TrainVocab
			}
			l := learning{w: c.ErrOrStderr()}
			options.Progress = l.set
			tok, err := setup.Vocabulary(c.Context(), conf, options)
			if err != nil {
				return err
			}
			l.finish()
			return saveTokenizer(c, o, tok, output)
		},
	}
	cfg.bind(c)
	c.Flags().IntVar(&options.VocabSize, "vocab-size", 8192, "tokens, with the 256 bytes, <s>, </s> and [MASK]; not given, tokenizer.train_vocab where that is set")
	c.Flags().IntVar(&options.MinFrequency, "min-frequency", 2, "pairs that occur less often are not merged")
	c.Flags().StringVarP(&output, "output", "o", "", "folder to write tokenizer.json and tokenizer_config.json to")
	return endingWell(c)
}

// open opens what a configuration names, and learns the vocabulary first where that is asked for, with progress on standard error.
func open(c *cobra.Command, cfg *config.Config) (*setup.Opened, error) {
	b := learning{w: c.ErrOrStderr()}
	opened, err := setup.Open(c.Context(), cfg, b.set)
	if err != nil {
		return nil, err
	}
	b.finish()
	return opened, nil
}

// learning tells how far a vocabulary is that is being learnt; of one that was learnt before there is nothing to tell.
type learning struct {
	w    io.Writer
	bar  *bar
	last tokenizer.TrainProgress
}

func (l *learning) set(p tokenizer.TrainProgress) {
	if l.bar == nil {
		l.bar = newBar(l.w, int64(p.Total), "tokenizer")
	}
	l.bar.set(int64(p.Merges))
	l.last = p
}

func (l *learning) finish() {
	if l.bar == nil {
		return
	}
	text := fmt.Sprintf("%d tokens, learnt from %s of text with %s different words", tokenizer.MinVocabSize+l.last.Merges,
		size(float64(l.last.Bytes)), count(float64(l.last.Words)))
	if l.last.Merges < l.last.Total {
		text += fmt.Sprintf(" (%d were asked for; no other pair occurs often enough)", tokenizer.MinVocabSize+l.last.Total)
	}
	l.bar.finish("%s", text)
}
