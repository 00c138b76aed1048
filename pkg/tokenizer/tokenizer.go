// Package tokenizer turns text into token ids and back.
package tokenizer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The special tokens that every vocabulary of this project has.
const (
	BOSToken  = "<s>"
	EOSToken  = "</s>"
	MaskToken = "[MASK]"
)

// The files of a model folder that hold its tokenizer.
const (
	File       = "tokenizer.json"
	ConfigFile = "tokenizer_config.json"
)

// Bytes is the value of tokenizer.path that names the byte-level vocabulary.
const Bytes = "bytes"

// Tokenizer maps text to ids. Implementations never change after they were
// made and may be used by several goroutines at once.
type Tokenizer interface {
	// Encode appends the ids of text to dst and returns it. Neither BOS nor
	// EOS is added.
	Encode(text []byte, dst []int32) []int32
	// Decode returns the text of ids. Special tokens appear as their strings
	// (callers that do not want them leave their ids out); an id outside the
	// vocabulary appears as U+FFFD.
	Decode(ids []int32) []byte
	// VocabSize returns one more than the largest id.
	VocabSize() int
	// BOS, EOS and Mask return the ids of <s>, </s> and [MASK], or -1 where
	// the vocabulary has none.
	BOS() int32
	EOS() int32
	Mask() int32
	// Special returns the ids of all special tokens in increasing order.
	Special() []int32
	// Fingerprint returns the SHA-256, in hexadecimal, of what defines the
	// ids: equal fingerprints mean equal ids for every text.
	Fingerprint() string
	// Save writes what a model folder needs, tokenizer.json and
	// tokenizer_config.json, into the existing folder dir.
	Save(dir string) error
}

// Load returns the tokenizer that path names: "" or "bytes"
// is the byte-level vocabulary; else a Hugging Face tokenizer.json with a BPE
// model, or a folder that holds one. The tokenizer_config.json beside it, where
// there is one, names BOS, EOS and [MASK]. What a file asks for and this
// package does not do is an error that names the field.
func Load(path string) (Tokenizer, error) {
	if path == "" || path == Bytes {
		return ByteLevel{}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %q: %w; name %q, a %s or a folder that holds one", path, err, Bytes, File)
	}
	file := path
	if info.IsDir() {
		file = filepath.Join(path, File)
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("tokenizer %q: the folder holds no %s; name one that does, or %q (a tokenizer.model alone is not read: "+
			"transformers' AutoTokenizer.save_pretrained writes both)", path, File, Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer %q: %w", path, err)
	}
	config, err := readConfig(file)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %q: %w", path, err)
	}
	t, err := parse(data, config)
	if err != nil {
		return nil, fmt.Errorf("reading tokenizer %s: %w; name a tokenizer of the kind of Llama, GPT-2 or Qwen, or %q", file, err, Bytes)
	}
	return t, nil
}
