package transformer

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Config is the size and shape of a model. The tags are the keys of the configuration's section model. Configs are compared with
// ==: equal means the same architecture.
type Config struct {
	Layers        int     `json:"layers"`         // Transformer blocks
	Heads         int     `json:"heads"`          // query heads
	KVHeads       int     `json:"kv_heads"`       // key and value heads; each serves Heads/KVHeads query heads
	HeadDim       int     `json:"head_dim"`       // elements of a head
	Dim           int     `json:"dim"`            // hidden size
	FFN           int     `json:"ffn"`            // inner size of the SwiGLU layer
	Vocab         int     `json:"vocab"`          // rows of the embedding and of the head
	MaxSeq        int     `json:"max_seq"`        // longest context in tokens
	RopeTheta     float64 `json:"rope_theta"`     // base of RoPE's frequencies
	NormEps       float64 `json:"norm_eps"`       // term added to RMSNorm's mean square
	TieEmbeddings bool    `json:"tie_embeddings"` // the head is the embedding's matrix
	QKVBias       bool    `json:"qkv_bias"`       // q, k and v have biases, o has none (Qwen 2)

	RopeScaling RopeScaling `json:"rope_scaling,omitzero"` // of positions, for contexts longer than those of the training
}

// preset is a named Config with the reference's RMSNorm eps and RoPE base.
type preset struct {
	name string
	Config
}

// presets lists the small ones first, for CPUs, then those of the reference implementation of MEAP. Where Vocab or MaxSeq is 0
// it is for the user to choose: the tokenizer's size and the training's row length fit.
var presets = []preset{
	{"meap-nano", Config{Layers: 4, Heads: 4, KVHeads: 2, HeadDim: 32, Dim: 128, FFN: 384}},
	{"meap-micro", Config{Layers: 6, Heads: 4, KVHeads: 2, HeadDim: 64, Dim: 256, FFN: 704}},
	{"meap-mini", Config{Layers: 8, Heads: 6, KVHeads: 2, HeadDim: 64, Dim: 384, FFN: 1088}},
	{"meap-0.1b", Config{Layers: 12, Heads: 12, KVHeads: 2, HeadDim: 64, Dim: 768, FFN: 2048, Vocab: 32064, MaxSeq: 4096}},
	{"meap-0.3b", Config{Layers: 24, Heads: 16, KVHeads: 2, HeadDim: 64, Dim: 1024, FFN: 2736, Vocab: 32064, MaxSeq: 4096}},
	{"meap-0.5b", Config{Layers: 24, Heads: 16, KVHeads: 2, HeadDim: 64, Dim: 1024, FFN: 4864, Vocab: 32064, MaxSeq: 4096}},
	{"meap-1b", Config{Layers: 24, Heads: 32, KVHeads: 2, HeadDim: 64, Dim: 2048, FFN: 5632, Vocab: 32064, MaxSeq: 4096}},
}

// Presets returns the names that Preset knows, the smallest model first.
func Presets() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}

// Preset returns the Config of a name. The small ones leave Vocab and MaxSeq 0, for the caller to set.
func Preset(name string) (Config, error) {
	for _, p := range presets {
		if p.name == name {
			p.RopeTheta, p.NormEps = 10000, 1e-5
			return p.Config, nil
		}
	}
	return Config{}, fmt.Errorf("there is no preset %q; choose one of %s", name, strings.Join(Presets(), ", "))
}

// PadVocab returns the number of embedding rows for a vocabulary of n ids: the next multiple of 64, so that the rows of the head's
// matrix product fill whole tiles. The reference pads its 32,001 ids to 32,064 by the same rule.
func PadVocab(n int) int { return (n + 63) / 64 * 64 }

// Validate returns an error that names every key of the section model whose value cannot be, nil if there is none.
func (c Config) Validate() error {
	var problems []error
	bad := func(key string, value any, format string, args ...any) {
		problems = append(problems, fmt.Errorf("model.%s = %v: %s", key, value, fmt.Sprintf(format, args...)))
	}
	// The upper limits are far above any model's; they keep the products of sizes within 63 bits and catch foreign files.
	for _, s := range []struct {
		key         string
		value, high int
	}{
		{"layers", c.Layers, 1 << 10},
		{"heads", c.Heads, 1 << 12},
		{"kv_heads", c.KVHeads, 1 << 12},
		{"head_dim", c.HeadDim, 1 << 12},
		{"dim", c.Dim, 1 << 20},
		{"ffn", c.FFN, 1 << 22},
		{"vocab", c.Vocab, 1 << 24},
		{"max_seq", c.MaxSeq, 1 << 24},
	} {
		if s.value < 1 || s.value > s.high {
			bad(s.key, s.value, "must be between 1 and %d", s.high)
		}
	}
	if c.Heads > 0 && c.KVHeads > 0 && c.Heads%c.KVHeads != 0 {
		bad("kv_heads", c.KVHeads, "must divide model.heads, which is %d", c.Heads)
	}
	if c.HeadDim > 0 && c.HeadDim%2 != 0 {
		bad("head_dim", c.HeadDim, "must be even, because RoPE turns pairs of a head's elements")
	}
	// NaN fails these comparisons.
	if !(c.RopeTheta > 1) || math.IsInf(c.RopeTheta, 0) {
		bad("rope_theta", c.RopeTheta, "must be above 1")
	}
	if !(c.NormEps > 0 && c.NormEps < 1) {
		bad("norm_eps", c.NormEps, "must be above 0 and below 1")
	}
	if err := c.RopeScaling.validate(c.HeadDim); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Parameters returns the number of trained values. A tied head counts once.
func (c Config) Parameters() int64 {
	var n int64
	for _, w := range c.Weights() {
		n += int64(w.Elems())
	}
	return n
}

// MultiplyingWeights returns the number of parameters that every token is multiplied with: all but the input embedding, which is
// looked up; a tied matrix multiplies as the head.
func (c Config) MultiplyingWeights() int64 {
	n := c.Parameters()
	if !c.TieEmbeddings {
		n -= int64(c.Vocab) * int64(c.Dim)
	}
	return n
}

// FLOPsPerToken returns the floating-point operations that training takes per token in rows of seq tokens, forward and backward:
//
//	6 N + 6 Layers Heads HeadDim seq
//
// N are the weights that multiply; each takes 2 operations forward and 4 backward. The second term is the two products of causal
// attention, of whose seq x seq scores half exist; the count of Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, appendix B) has 12
// there. Recomputation is not counted: it is a cost, not work done.
func (c Config) FLOPsPerToken(seq int) float64 {
	return 6*float64(c.MultiplyingWeights()) + 6*float64(c.Layers)*float64(c.Heads*c.HeadDim)*float64(seq)
}
