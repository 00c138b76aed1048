package main

import (
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"meap/pkg/dataset"
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

The text is prepared as bytes below data.cache_dir first, as meap data prepare does it: another size can then be
learnt from it without reading the sources again.`,
		Example: `  meap tokenizer train --config configs/quickstart.yaml --vocab-size 4096 --output tokenizers/go
  meap tokenizer train '~/books/**/*.txt' --vocab-size 32000 --output tokenizers/books`,
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usagef("train needs --output DIR")
			}
			if options.VocabSize < tokenizer.MinVocabSize || options.MinFrequency < 1 {
				return usagef("--vocab-size must be at least %d and --min-frequency at least 1", tokenizer.MinVocabSize)
			}
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				conf.Data.Sources, conf.Data.Validation, conf.Data.ValidationFraction = args, nil, 0
			}
			set, err := prepareData(c, o, conf, tokenizer.ByteLevel{})
			if err != nil {
				return err
			}
			options.Threads = conf.Trainer.Threads
			tok, err := trainTokenizer(c, set, options)
			if err != nil {
				return err
			}
			return saveTokenizer(c, o, tok, output)
		},
	}
	cfg.bind(c)
	c.Flags().IntVar(&options.VocabSize, "vocab-size", 8192, "tokens, with the 256 bytes, <s>, </s> and [MASK]")
	c.Flags().IntVar(&options.MinFrequency, "min-frequency", 2, "pairs that occur less often are not merged")
	c.Flags().StringVarP(&output, "output", "o", "", "folder to write tokenizer.json and tokenizer_config.json to")
	return c
}

// trainTokenizer learns from the training split of a set of bytes, with progress on standard error.
func trainTokenizer(c *cobra.Command, set *dataset.Set, options tokenizer.TrainOptions) (tokenizer.Tokenizer, error) {
	stream, err := dataset.OpenStream(set.Dir, dataset.Train)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	b := newBar(c.ErrOrStderr(), int64(options.VocabSize-tokenizer.MinVocabSize), "tokenizer")
	var last tokenizer.TrainProgress
	options.Progress = func(p tokenizer.TrainProgress) {
		last = p
		b.set(int64(p.Merges))
	}
	tok, err := tokenizer.Train(c.Context(), documentTexts(stream), options)
	if err != nil {
		return nil, fmt.Errorf("learning the vocabulary: %w", err)
	}
	text := fmt.Sprintf("%s of text, %s different words, %d merges", size(float64(last.Bytes)), count(float64(last.Words)), last.Merges)
	if last.Merges < last.Total {
		text += fmt.Sprintf(" (%d were asked for; no other pair occurs %d times)", last.Total, options.MinFrequency)
	}
	b.finish("%s", text)
	return tok, nil
}

// documentTexts yields the documents of a stream of bytes; each is valid until the next.
func documentTexts(s *dataset.Stream) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var text []byte
		ids := make([]int32, 1<<16)
		for at := int64(0); at < s.Len(); at += int64(len(ids)) {
			ids = ids[:min(int64(len(ids)), s.Len()-at)]
			if err := s.Read(at, ids); err != nil {
				yield(nil, err)
				return
			}
			for _, id := range ids {
				if id < 256 {
					text = append(text, byte(id))
					continue
				}
				if len(text) > 0 && !yield(text, nil) { // <s> or </s>
					return
				}
				text = text[:0]
			}
		}
		if len(text) > 0 {
			yield(text, nil)
		}
	}
}
