package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// IndexFile is the name of a prepared folder's index. It is written last.
const IndexFile = "index.json"

const indexVersion = 1

// Index says what a prepared folder holds.
type Index struct {
	Version   int    `json:"version"`
	Tokenizer string `json:"tokenizer"` // fingerprint
	Vocab     int    `json:"vocab"`     // ids are below it
	BOS       int32  `json:"bos"`       // begins every document; -1: nothing does
	EOS       int32  `json:"eos"`       // ends every document, and fills up the last shard
	// Source is the fingerprint of everything that the shards were made from:
	// names, sizes and times of the files, the tokenizer, the configuration.
	Source     string     `json:"source"`
	Train      SplitInfo  `json:"train"`
	Validation *SplitInfo `json:"validation,omitempty"`
}

// SplitInfo says what one split holds.
type SplitInfo struct {
	Shards    []ShardInfo `json:"shards"`
	Tokens    int64       `json:"tokens"`    // with BOS and EOS, without what fills up the last shard
	Bytes     int64       `json:"bytes"`     // of text
	Documents int64       `json:"documents"` // each packed as <s> text </s>
	Files     int64       `json:"files"`     // that the documents came from
	Skipped   Skipped     `json:"skipped"`
}

// ShardInfo is one file of a split.
type ShardInfo struct {
	Name   string `json:"name"`
	Tokens int64  `json:"tokens"` // without what fills it up
	SHA256 string `json:"sha256"` // of the whole file
}

// Fingerprint returns the SHA-256, in hexadecimal, of the data itself: the ids
// and the tokenizer, not where the text came from. A run may be resumed on
// data with the same fingerprint.
func (x *Index) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintln(h, x.Version, x.Tokenizer, x.Vocab, x.BOS, x.EOS)
	for _, name := range []string{Train, Validation} {
		s, err := x.Split(name)
		if err != nil {
			continue
		}
		fmt.Fprintln(h, name, s.Tokens)
		for _, f := range s.Shards {
			fmt.Fprintln(h, f.Tokens, f.SHA256)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Split returns what the index says of one split.
func (x *Index) Split(name string) (*SplitInfo, error) {
	switch name {
	case Train:
		return &x.Train, nil
	case Validation:
		if x.Validation == nil {
			return nil, errors.New("there is no validation split; set data.validation or data.validation_fraction")
		}
		return x.Validation, nil
	}
	return nil, fmt.Errorf("there is no split %q; the splits are %s and %s", name, Train, Validation)
}

// Labels returns the tokens of the split that count in its bits per byte: all
// but the BOS of every document. Where a text's documents begin is nothing
// that the text says; where they end is.
func (s *SplitInfo) Labels(bos int32) int64 {
	if bos < 0 {
		return s.Tokens
	}
	return s.Tokens - s.Documents
}

// BitsPerByte returns the bits that a model spends on a byte of text, from the
// sum over all labels but BOS (see SplitInfo.Labels) of the negative natural
// logarithm of their probabilities, and the bytes of that text.
func BitsPerByte(nats float64, bytes int64) float64 {
	return nats / math.Ln2 / float64(bytes)
}

// ReadIndex reads and checks the index of a prepared folder.
func ReadIndex(dir string) (*Index, error) {
	path := filepath.Join(dir, IndexFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading prepared data: %w; name a folder that `meap data prepare` has written, or delete %s and prepare it again", err, dir)
	}
	x, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w; delete the folder %s and prepare it again", path, err, dir)
	}
	return x, nil
}

// parseIndex decodes an index and checks that it agrees with itself.
func parseIndex(data []byte) (*Index, error) {
	var x Index
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, err
	}
	if x.Version != indexVersion {
		return nil, fmt.Errorf("it has version %d; this version reads only %d", x.Version, indexVersion)
	}
	if x.Vocab < 1 || x.Vocab > math.MaxInt32 || int64(x.BOS) >= int64(x.Vocab) || x.EOS < 0 || int64(x.EOS) >= int64(x.Vocab) {
		return nil, fmt.Errorf("vocab %d, bos %d and eos %d do not go together", x.Vocab, x.BOS, x.EOS)
	}
	if err := x.Train.check(); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if x.Validation != nil {
		if err := x.Validation.check(); err != nil {
			return nil, fmt.Errorf("validation: %w", err)
		}
	}
	return &x, nil
}

func (s *SplitInfo) check() error {
	if len(s.Shards) == 0 {
		return errors.New("it names no shards")
	}
	sum := int64(0)
	for _, f := range s.Shards {
		if f.Name == "" || f.Name == "." || f.Name == ".." || strings.ContainsAny(f.Name, `/\:`) {
			return fmt.Errorf("%q is not the name of a file in its folder", f.Name)
		}
		if f.Tokens < 1 || f.Tokens > math.MaxInt64-sum {
			return fmt.Errorf("%s cannot hold %d tokens", f.Name, f.Tokens)
		}
		sum += f.Tokens
	}
	if sum != s.Tokens {
		return fmt.Errorf("its shards hold %d tokens, not %d", sum, s.Tokens)
	}
	if s.Bytes < 1 || s.Documents < 1 || s.Documents > s.Tokens {
		return fmt.Errorf("%d bytes and %d documents cannot be", s.Bytes, s.Documents)
	}
	return nil
}
