package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"meap/internal/setup"
	"meap/pkg/tokenizer"
)

func newTokenizer(o *options) *cobra.Command {
	return group("tokenizer", "Learn a vocabulary, and turn text into tokens and back",
		newTokenizerTrain(o), newTokenizerEncode(o), newTokenizerDecode(o), newTokenizerAddMask(o))
}

// tokens is what encode --json writes and decode reads.
type tokens struct {
	IDs []int32 `json:"ids"`
}

func newTokenizerEncode(o *options) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "encode",
		Short: "Turn standard input into token ids",
		Long: `Turn standard input, all of it as one text, into token ids. No <s> and no </s> is added; added tokens that
the text spells are found.`,
		Example: `  echo -n 'Hello, world' | meap tokenizer encode --tokenizer models/llama --json
  meap tokenizer encode --tokenizer bytes < notes.txt`,
		RunE: func(c *cobra.Command, _ []string) error {
			tok, err := loadTokenizer(path)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(c.InOrStdin())
			if err != nil {
				return fmt.Errorf("reading standard input: %w", err)
			}
			ids := tok.Encode(text, []int32{})
			if o.json {
				return printJSON(c.OutOrStdout(), tokens{ids})
			}
			for _, id := range ids {
				if _, err := fmt.Fprintf(c.OutOrStdout(), "%d\t%q\n", id, tok.Decode([]int32{id})); err != nil {
					return err
				}
			}
			return nil
		},
	}
	bindTokenizer(c, &path)
	return c
}

func newTokenizerDecode(o *options) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "decode",
		Short: "Turn token ids into text",
		Long: `Turn the token ids on standard input into text. They are {"ids": [...]} as encode --json writes them, or a
list of numbers. With --json the text is {"text": "..."}, else it is written as it is, bytes that are no UTF-8 too.`,
		Example: `  meap tokenizer encode --tokenizer models/llama --json < notes.txt | meap tokenizer decode --tokenizer models/llama
  echo '[15043, 3186]' | meap tokenizer decode --tokenizer models/llama`,
		RunE: func(c *cobra.Command, _ []string) error {
			tok, err := loadTokenizer(path)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(c.InOrStdin())
			if err != nil {
				return fmt.Errorf("reading standard input: %w", err)
			}
			var in tokens
			if listErr := json.Unmarshal(data, &in.IDs); listErr != nil {
				if err := json.Unmarshal(data, &in); err != nil {
					return fmt.Errorf(`standard input: %w; it must be {"ids": [...]} or a list of numbers`, err)
				}
			}
			for i, id := range in.IDs {
				if id < 0 || int(id) >= tok.VocabSize() {
					return fmt.Errorf("standard input: ids[%d] = %d: the vocabulary has the ids 0 to %d", i, id, tok.VocabSize()-1)
				}
			}
			text := tok.Decode(in.IDs)
			if o.json {
				return printJSON(c.OutOrStdout(), map[string]string{"text": string(text)})
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	bindTokenizer(c, &path)
	return c
}

func newTokenizerAddMask(o *options) *cobra.Command {
	var path, output, eos string
	c := &cobra.Command{
		Use:   "add-mask",
		Short: "Give a tokenizer a [MASK] token, and one that ends a text",
		Long: `Write a tokenizer that has [MASK] besides what --tokenizer has, as MEAP needs it. Its id is the first one
that is free: 32000 for Llama-2, as in the paper.

--eos names the token that ends a text, where --tokenizer tells none (by eos_token in tokenizer_config.json or
special_tokens_map.json, or by having </s>, <|end_of_text|> or <|endoftext|>). It is added where there is none of that name.`,
		Example: `  meap tokenizer add-mask --tokenizer models/llama --output models/llama-mask
  meap tokenizer add-mask --tokenizer models/mine --eos '<|endoftext|>' --output models/mine-mask`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output == "" {
				return usagef("add-mask needs --output DIR")
			}
			tok, err := loadTokenizer(path)
			if err != nil {
				return err
			}
			if tok, err = tokenizer.AddMask(tok); err != nil {
				return err
			}
			if c.Flags().Changed("eos") {
				if has := tok.EOS(); has >= 0 {
					return usagef("--eos %s: the tokenizer has a token that ends a text, %s; leave --eos out", eos, tok.Decode([]int32{has}))
				}
				if tok, err = tokenizer.AddEOS(tok, eos); err != nil {
					return usagef("--eos: %v", err)
				}
			}
			return saveTokenizer(c, o, tok, output)
		},
	}
	bindTokenizer(c, &path)
	c.Flags().StringVarP(&output, "output", "o", "", "folder to write tokenizer.json and tokenizer_config.json to")
	c.Flags().StringVar(&eos, "eos", "", "token that ends a text, where the tokenizer has none")
	return c
}

func bindTokenizer(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "tokenizer", "", "tokenizer.json, a folder that holds one, or bytes")
}

func loadTokenizer(path string) (tokenizer.Tokenizer, error) {
	if path == "" {
		return nil, usagef("--tokenizer is missing: name a tokenizer.json, a folder that holds one, or %s", tokenizer.Bytes)
	}
	return setup.NamedTokenizer("--tokenizer", path)
}

// saveTokenizer writes tok into dir, which need not exist, and tells its ids.
func saveTokenizer(c *cobra.Command, o *options, tok tokenizer.Tokenizer, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	if err := tok.Save(dir); err != nil {
		return err
	}
	if o.json {
		return printJSON(c.OutOrStdout(), map[string]any{
			"dir": dir, "vocab": tok.VocabSize(), "bos": tok.BOS(), "eos": tok.EOS(), "mask": tok.Mask(), "fingerprint": tok.Fingerprint(),
		})
	}
	_, err := fmt.Fprintf(c.ErrOrStderr(), "tokenizer: %d tokens, BOS %d, EOS %d, %s %d, in %s\n",
		tok.VocabSize(), tok.BOS(), tok.EOS(), tokenizer.MaskToken, tok.Mask(), dir)
	return err
}
