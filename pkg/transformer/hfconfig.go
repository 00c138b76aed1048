package transformer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files of a model folder.
const (
	configFile     = "config.json"
	generationFile = "generation_config.json"
	weightsFile    = "model.safetensors"
	indexFile      = "model.safetensors.index.json"
)

// hfConfig is config.json as Hugging Face transformers writes it, of what decides a model's maths. Pointers tell what is absent or
// null.
type hfConfig struct {
	Architectures         []string `json:"architectures"`
	ModelType             string   `json:"model_type"`
	VocabSize             *int     `json:"vocab_size"`
	HiddenSize            *int     `json:"hidden_size"`
	IntermediateSize      *int     `json:"intermediate_size"`
	NumHiddenLayers       *int     `json:"num_hidden_layers"`
	NumAttentionHeads     *int     `json:"num_attention_heads"`
	NumKeyValueHeads      *int     `json:"num_key_value_heads"`
	HeadDim               *int     `json:"head_dim"`
	HiddenAct             string   `json:"hidden_act"`
	MaxPositionEmbeddings *int     `json:"max_position_embeddings"`
	InitializerRange      float64  `json:"initializer_range"`
	RMSNormEps            *float64 `json:"rms_norm_eps"`
	TieWordEmbeddings     bool     `json:"tie_word_embeddings"`
	AttentionBias         bool     `json:"attention_bias"`
	AttentionDropout      float64  `json:"attention_dropout"`
	MLPBias               bool     `json:"mlp_bias"`
	UseSlidingWindow      bool     `json:"use_sliding_window"`
	UseCache              bool     `json:"use_cache"`
	TorchDtype            string   `json:"torch_dtype,omitempty"`
	// Up to version 4 of transformers RoPE's base stands in rope_theta and its scaling in rope_scaling, from 5 on both in
	// rope_parameters; all are written.
	RopeTheta      *float64  `json:"rope_theta"`
	RopeScaling    *hfRoPE   `json:"rope_scaling"`
	RopeParameters *hfRoPE   `json:"rope_parameters"`
	BOS            *int32    `json:"bos_token_id"`
	EOS            *tokenIDs `json:"eos_token_id"`
}

const (
	llama = "llama"
	qwen2 = "qwen2"
)

// hf returns config.json for a model: LlamaForCausalLM, or Qwen2ForCausalLM where q, k and v have biases. (Llama's attention_bias
// gives o a bias too, so it can say nothing of such a model; Qwen 2 is Llama with exactly these three.)
func (c Config) hf() hfConfig {
	h := hfConfig{
		Architectures:         []string{"LlamaForCausalLM"},
		ModelType:             llama,
		VocabSize:             &c.Vocab,
		HiddenSize:            &c.Dim,
		IntermediateSize:      &c.FFN,
		NumHiddenLayers:       &c.Layers,
		NumAttentionHeads:     &c.Heads,
		NumKeyValueHeads:      &c.KVHeads,
		HeadDim:               &c.HeadDim,
		HiddenAct:             "silu",
		MaxPositionEmbeddings: &c.MaxSeq,
		InitializerRange:      0.02,
		RMSNormEps:            &c.NormEps,
		TieWordEmbeddings:     c.TieEmbeddings,
		UseCache:              true,
		RopeTheta:             &c.RopeTheta,
		RopeScaling:           c.RopeScaling.hf(),
		RopeParameters:        c.RopeScaling.hf(),
	}
	if h.RopeParameters == nil {
		h.RopeParameters = &hfRoPE{RopeType: string(ropeDefault)}
	}
	h.RopeParameters.Theta = &c.RopeTheta
	if c.RopeScaling.Type == RopeDynamic {
		h.MaxPositionEmbeddings = &c.RopeScaling.Original
	}
	if c.QKVBias {
		h.Architectures, h.ModelType = []string{"Qwen2ForCausalLM"}, qwen2
	}
	return h
}

// LoadConfig reads the config.json of a model folder: of a Llama or Qwen 2 model without what this package doesn't compute
// (sliding windows, other activations, other biases, other scalings of positions), which it refuses by the key's name.
func LoadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, configFile)
	var h hfConfig
	if err := readJSON(path, &h); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Config{}, fmt.Errorf("%s is not a model folder: %w", dir, err)
		}
		return Config{}, err
	}
	c, err := h.config()
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("%s describes a model that meap cannot run: %w", path, err)
	}
	return c, nil
}

// config is the reverse of Config.hf. What is absent has transformers' default.
func (h *hfConfig) config() (Config, error) {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	need := func(key string, v *int) int {
		if v == nil {
			refuse("%s is missing", key)
			return 0
		}
		return *v
	}
	c := Config{
		Layers:        need("num_hidden_layers", h.NumHiddenLayers),
		Heads:         need("num_attention_heads", h.NumAttentionHeads),
		Dim:           need("hidden_size", h.HiddenSize),
		FFN:           need("intermediate_size", h.IntermediateSize),
		Vocab:         need("vocab_size", h.VocabSize),
		RopeTheta:     10000,
		NormEps:       or(h.RMSNormEps, 1e-6),
		TieEmbeddings: h.TieWordEmbeddings,
		QKVBias:       h.ModelType == qwen2,
	}
	c.KVHeads = or(h.NumKeyValueHeads, c.Heads)
	c.HeadDim = or(h.HeadDim, c.Dim/max(c.Heads, 1))
	c.MaxSeq = or(h.MaxPositionEmbeddings, map[string]int{llama: 2048, qwen2: 32768}[h.ModelType])
	// As transformers does, rope_scaling goes before rope_parameters.
	rope := h.RopeScaling
	if rope == nil {
		rope = h.RopeParameters
	}
	switch {
	case rope != nil && rope.Theta != nil:
		c.RopeTheta = *rope.Theta
	case h.RopeTheta != nil:
		c.RopeTheta = *h.RopeTheta
	case h.RopeParameters != nil && h.RopeParameters.Theta != nil:
		c.RopeTheta = *h.RopeParameters.Theta
	}
	if h.ModelType != llama && h.ModelType != qwen2 {
		refuse("model_type %q is neither %q nor %q", h.ModelType, llama, qwen2)
	}
	if h.HiddenAct != "" && h.HiddenAct != "silu" {
		refuse("hidden_act is %q, not silu", h.HiddenAct)
	}
	var err error
	if c.RopeScaling, err = rope.scaling(c.MaxSeq); err != nil {
		refuse("rope_scaling or rope_parameters: %w", err)
	}
	if h.AttentionBias && h.ModelType != qwen2 {
		refuse("attention_bias is true, which gives o_proj a bias too: only biases of q, k and v (model_type %q) are supported", qwen2)
	}
	if h.MLPBias {
		refuse("mlp_bias is true, which is not supported")
	}
	if h.UseSlidingWindow {
		refuse("use_sliding_window is true, which is not supported")
	}
	return c, errors.Join(problems...)
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// SpecialTokens are the ids that generation begins and ends with, as a model folder states them.
type SpecialTokens struct {
	BOS int32   // negative: the model has none
	EOS []int32 // any of them ends a text
}

// hfGeneration is generation_config.json.
type hfGeneration struct {
	BOS *int32    `json:"bos_token_id,omitempty"`
	EOS *tokenIDs `json:"eos_token_id,omitempty"`
}

func (s SpecialTokens) hf() hfGeneration {
	var h hfGeneration
	if s.BOS >= 0 {
		h.BOS = &s.BOS
	}
	if len(s.EOS) > 0 {
		h.EOS = (*tokenIDs)(&s.EOS)
	}
	return h
}

// tokenIDs is one id or a list of them in JSON.
type tokenIDs []int32

// UnmarshalJSON implements json.Unmarshaler.
func (t *tokenIDs) UnmarshalJSON(data []byte) error {
	var one int32
	if json.Unmarshal(data, &one) == nil {
		*t = tokenIDs{one}
		return nil
	}
	return json.Unmarshal(data, (*[]int32)(t))
}

// MarshalJSON implements json.Marshaler.
func (t tokenIDs) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]int32(t))
}

// LoadSpecialTokens reads generation_config.json of a model folder and, for what that doesn't say, config.json.
func LoadSpecialTokens(dir string) (SpecialTokens, error) {
	s := SpecialTokens{BOS: -1}
	for _, name := range []string{configFile, generationFile} {
		var h hfGeneration
		if err := readJSON(filepath.Join(dir, name), &h); err != nil && !os.IsNotExist(err) {
			return s, err
		}
		s.BOS = or(h.BOS, s.BOS)
		if h.EOS != nil {
			s.EOS = *h.EOS
		}
	}
	return s, nil
}
