package config

import (
	"errors"
	"fmt"
	"math"

	"meap/pkg/dataset"
	"meap/pkg/dataset/dialogue"
	"meap/pkg/dataset/facts"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
)

// Config is the whole configuration. A section's type, defaults and ranges are beside the code that uses it; what concerns two sections
// is checked here.
type Config struct {
	Model     ModelConfig     `mapstructure:"model"`
	Tokenizer TokenizerConfig `mapstructure:"tokenizer"`
	Data      dataset.Config  `mapstructure:"data"`
	Facts     facts.Config    `mapstructure:"facts"`
	Masking   masking.Config  `mapstructure:"masking"`
	SFT       dialogue.Config `mapstructure:"sft"`
	Trainer   trainer.Config  `mapstructure:"trainer"`
}

// ModelConfig is the section model: a preset or a model folder, and sizes that differ from it. A zero or nil value means "as there".
type ModelConfig struct {
	Preset        string  `mapstructure:"preset" help:"sizes to start from, as meap plan --help lists them"`
	Path          string  `mapstructure:"path" help:"model folder whose weights training starts from, instead of model.preset"`
	Layers        int     `mapstructure:"layers" help:"Transformer blocks (0: from the preset)"`
	Heads         int     `mapstructure:"heads" help:"attention heads (0: from the preset)"`
	KVHeads       int     `mapstructure:"kv_heads" help:"key and value heads, a divisor of model.heads (0: from the preset)"`
	HeadDim       int     `mapstructure:"head_dim" help:"size of a head (0: from the preset, or model.dim / model.heads)"`
	Dim           int     `mapstructure:"dim" help:"hidden size (0: from the preset)"`
	FFN           int     `mapstructure:"ffn" help:"inner size of the SwiGLU layer (0: from the preset)"`
	Vocab         int     `mapstructure:"vocab" help:"rows of the embedding, at least the tokenizer's ids (0: from the preset)"`
	MaxSeq        int     `mapstructure:"max_seq" help:"longest context in tokens (0: from the preset)"`
	TieEmbeddings *bool   `mapstructure:"tie_embeddings" help:"the head shares the embedding's weights (null: from the preset)"`
	RopeTheta     float64 `mapstructure:"rope_theta" help:"base of RoPE's frequencies (0: from the preset)"`
	NormEps       float64 `mapstructure:"norm_eps" help:"term added to RMSNorm's mean square (0: from the preset)"`
	QKVBias       *bool   `mapstructure:"qkv_bias" help:"the query, key and value projections have biases (null: from the preset)"`
}

// TokenizerConfig is the section tokenizer.
type TokenizerConfig struct {
	Path       string `mapstructure:"path" help:"folder or file of the tokenizer (empty: tokenizer.train_vocab, or bytes)"`
	TrainVocab int    `mapstructure:"train_vocab" help:"tokens of a byte-level BPE vocabulary that is learnt from the training text and kept in data.cache_dir (0: none is learnt)"`
	TrainBytes int64  `mapstructure:"train_bytes" help:"text that it is learnt from, in bytes, spread over all training files (0: all)"`
}

// Validate returns one error for each value out of its range.
func (c TokenizerConfig) Validate() []error {
	var problems []error
	if v := c.TrainVocab; v != 0 && (v < tokenizer.MinVocabSize || v > tokenizer.MaxVocabSize) {
		problems = append(problems, fmt.Errorf("tokenizer.train_vocab = %d: must be from %d (the bytes, %s, %s and %s) to %d, or 0 for none",
			v, tokenizer.MinVocabSize, tokenizer.BOSToken, tokenizer.EOSToken, tokenizer.MaskToken, tokenizer.MaxVocabSize))
	}
	if c.TrainBytes < 0 {
		problems = append(problems, fmt.Errorf("tokenizer.train_bytes = %d: must be 0 or more", c.TrainBytes))
	}
	if c.Path != "" && c.TrainVocab != 0 {
		problems = append(problems, fmt.Errorf("tokenizer.train_vocab = %d: tokenizer.path is set too (%s): leave one of them empty", c.TrainVocab, c.Path))
	}
	return problems
}

// Default returns the configuration that a run has where nothing is set. It names no model and no data: these have no default.
func Default() Config {
	return Config{
		Tokenizer: TokenizerConfig{TrainBytes: 256 << 20},
		Data:      dataset.DefaultConfig(),
		Facts:     facts.DefaultConfig(),
		Masking:   masking.DefaultConfig(),
		SFT:       dialogue.DefaultConfig(),
		Trainer:   trainer.DefaultConfig(),
	}
}

// Validate returns the values that are out of range and those that contradict each other, joined, each beginning with the full key.
func (c *Config) Validate() error {
	problems := c.Model.Validate()
	problems = append(problems, c.Tokenizer.Validate()...)
	problems = append(problems, c.Data.Validate()...)
	problems = append(problems, c.Facts.Validate()...)
	problems = append(problems, c.Masking.Validate()...)
	problems = append(problems, c.SFT.Validate()...)
	problems = append(problems, c.Trainer.Validate()...)
	if c.Model.MaxSeq > 0 && c.Trainer.Seq > c.Model.MaxSeq {
		problems = append(problems, fmt.Errorf("trainer.seq = %d: must be at most model.max_seq, which is %d", c.Trainer.Seq, c.Model.MaxSeq))
	}
	return errors.Join(problems...)
}

// Validate returns one error for each value out of its range, each beginning with the full key. What only the preset or the
// model folder can tell is checked where these are read.
func (c ModelConfig) Validate() []error {
	var problems []error
	bad := func(key string, value any, format string, args ...any) {
		problems = append(problems, fmt.Errorf("model.%s = %v: %s", key, value, fmt.Sprintf(format, args...)))
	}
	// NaN fails these comparisons.
	if !(c.RopeTheta == 0 || c.RopeTheta > 1) || math.IsInf(c.RopeTheta, 0) {
		bad("rope_theta", c.RopeTheta, "must be above 1, or 0 for the preset's")
	}
	if !(c.NormEps >= 0 && c.NormEps < 1) {
		bad("norm_eps", c.NormEps, "must be above 0 and below 1, or 0 for the preset's")
	}
	if c.Preset != "" && c.Path != "" {
		bad("path", c.Path, "model.preset is set too (%s): leave one of them empty", c.Preset)
	}
	sizes := []struct {
		key     string
		v, high int
	}{
		{"layers", c.Layers, 1 << 10},
		{"heads", c.Heads, 1 << 12},
		{"kv_heads", c.KVHeads, 1 << 12},
		{"head_dim", c.HeadDim, 1 << 12},
		{"dim", c.Dim, 1 << 20},
		{"ffn", c.FFN, 1 << 22},
		{"vocab", c.Vocab, 1 << 24},
		{"max_seq", c.MaxSeq, 1 << 24},
	}
	// Upper limits keep products of two sizes inside an int64; no model comes near them.
	inRange := true
	for _, s := range sizes {
		if s.v < 0 || s.v > s.high {
			bad(s.key, s.v, "must be from 1 to %d, or 0 for the preset's", s.high)
			inRange = false
		}
	}
	if !inRange {
		return problems
	}
	if c.Heads > 0 && c.KVHeads > 0 && c.Heads%c.KVHeads != 0 {
		bad("kv_heads", c.KVHeads, "must divide model.heads, which is %d", c.Heads)
	}
	if c.HeadDim%2 != 0 {
		bad("head_dim", c.HeadDim, "must be even: RoPE rotates its halves")
	}
	if c.HeadDim == 0 && c.Dim > 0 && c.Heads > 0 && c.Dim%(2*c.Heads) != 0 {
		bad("dim", c.Dim, "must be an even multiple of model.heads, which is %d, or set model.head_dim", c.Heads)
	}
	return problems
}
