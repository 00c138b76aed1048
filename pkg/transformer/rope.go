package transformer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// RopeType is a way to scale positions, by its name in config.json's rope_type.
type RopeType string

// The ways to scale positions that this package computes.
const (
	RopeLinear  RopeType = "linear"  // every frequency is divided by the factor (position interpolation, arXiv 2306.15595)
	RopeDynamic RopeType = "dynamic" // RoPE's base grows with the context (NTK-aware scaling)
	RopeYarn    RopeType = "yarn"    // low frequencies are divided, high ones kept, attention sharpened (arXiv 2309.00071)
	RopeLlama3  RopeType = "llama3"  // low frequencies are divided, high ones kept (Llama 3.1)

	ropeDefault RopeType = "default" // transformers' name for none
)

// RopeScaling lets a model read contexts longer than those that it was trained on. The zero value scales nothing. The formulas
// are those of Hugging Face transformers, modeling_rope_utils.py, whose names the keys of config.json are.
type RopeScaling struct {
	Type     RopeType `json:"rope_type"`
	Factor   float64  `json:"factor"`                                     // how many times longer contexts become
	Original int      `json:"original_max_position_embeddings,omitempty"` // positions before scaling; linear doesn't use it

	LowFreqFactor  float64 `json:"low_freq_factor,omitempty"`  // llama3: wavelengths above Original / LowFreqFactor are scaled whole
	HighFreqFactor float64 `json:"high_freq_factor,omitempty"` // llama3: those below Original / HighFreqFactor aren't

	BetaFast        float64 `json:"beta_fast,omitempty"`        // yarn: frequencies of more turns in Original positions aren't scaled
	BetaSlow        float64 `json:"beta_slow,omitempty"`        // yarn: those of fewer turns are scaled whole
	AttentionFactor float64 `json:"attention_factor,omitempty"` // yarn: on queries and keys
	Exact           bool    `json:"exact,omitempty"`            // yarn: the bounds of both aren't rounded to whole frequencies
}

// scales tells whether there is anything to do.
func (s RopeScaling) scales() bool { return s.Type != "" }

// validate returns an error that names every key whose value cannot be.
func (s RopeScaling) validate(headDim int) error {
	if !s.scales() {
		return nil
	}
	var problems []error
	bad := func(key string, value any, must string) {
		problems = append(problems, fmt.Errorf("rope_scaling.%s = %v: must be %s", key, value, must))
	}
	// NaN fails these comparisons.
	if !(s.Factor >= 1 && s.Factor <= 1<<20) {
		bad("factor", s.Factor, "between 1 and 1048576")
	}
	if (s.Original < 1 || s.Original > 1<<24) && s.Type != RopeLinear {
		bad("original_max_position_embeddings", s.Original, "between 1 and 16777216")
	}
	switch s.Type {
	case RopeLinear:
	case RopeDynamic:
		if headDim == 2 {
			bad("rope_type", s.Type, "another: its formula has no value for heads of 2 elements")
		}
	case RopeYarn:
		if !(s.BetaSlow > 0 && s.BetaFast >= s.BetaSlow && s.BetaFast <= 1<<24) {
			bad("beta_fast", s.BetaFast, fmt.Sprintf("at least beta_slow, which is %v and must be above 0", s.BetaSlow))
		}
		if !(s.AttentionFactor > 0 && s.AttentionFactor < 1000) {
			bad("attention_factor", s.AttentionFactor, "above 0 and below 1000")
		}
	case RopeLlama3:
		if !(s.LowFreqFactor > 0 && s.HighFreqFactor > s.LowFreqFactor) || math.IsInf(s.HighFreqFactor, 0) {
			bad("high_freq_factor", s.HighFreqFactor, fmt.Sprintf("above low_freq_factor, which is %v and must be above 0", s.LowFreqFactor))
		}
	default:
		bad("rope_type", s.Type, "linear, dynamic, yarn or llama3")
	}
	return errors.Join(problems...)
}

// ScaleRope returns the model for contexts longer than those it was made for. spec is a type and a factor, such as yarn:4, then
// perhaps further keys of config.json: llama3:8,low_freq_factor=1,high_freq_factor=4. default:2 only makes contexts
// twice as long, to compare with. It replaces whatever scaling the model had; the factor counts from the positions before that.
func (c Config) ScaleRope(spec string) (Config, error) {
	fail := func(err error) (Config, error) {
		return Config{}, fmt.Errorf("position scaling %q: %w; write TYPE:FACTOR, such as linear:2, dynamic:2, yarn:4 or llama3:8", spec, err)
	}
	original := c.MaxSeq
	if c.RopeScaling.Original > 0 {
		original = c.RopeScaling.Original
	}
	head, rest, _ := strings.Cut(spec, ",")
	name, factor, _ := strings.Cut(head, ":")
	f, err := strconv.ParseFloat(factor, 64)
	if err != nil {
		return fail(fmt.Errorf("the factor %q is no number", factor))
	}
	keys := map[string]any{"rope_type": name, "factor": f, "original_max_position_embeddings": original}
	if name == string(RopeLlama3) {
		keys["low_freq_factor"], keys["high_freq_factor"] = 1, 4 // Llama 3.1's
	}
	for pair := range strings.SplitSeq(rest, ",") {
		if pair == "" {
			continue
		}
		key, text, _ := strings.Cut(pair, "=")
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			return fail(fmt.Errorf("%s = %q is neither a number nor true or false", key, text))
		}
		keys[key] = value
	}
	raw, err := json.Marshal(keys)
	if err != nil {
		return fail(err)
	}
	var h hfRoPE
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&h); err != nil {
		return fail(err)
	}
	if c.RopeScaling, err = h.scaling(original); err != nil {
		return fail(err)
	}
	if !c.RopeScaling.scales() {
		if !(f >= 1 && f <= 1<<20) {
			return fail(fmt.Errorf("the factor must be between 1 and 1048576"))
		}
	} else if err := c.RopeScaling.validate(c.HeadDim); err != nil {
		return fail(err)
	} else if h.Original != nil {
		original = *h.Original
	}
	c.MaxSeq = int(float64(original) * f)
	if err := c.Validate(); err != nil {
		return fail(err)
	}
	return c, nil
}

// Extended returns the model for the longest contexts that its own scaling is made for: config.json may state the positions before
// scaling as max_position_embeddings, which is what training keeps to.
func (c Config) Extended() Config {
	if s := c.RopeScaling; s.scales() && s.Type != RopeLinear {
		c.MaxSeq = max(c.MaxSeq, min(int(float64(s.Original)*s.Factor), 1<<24))
	}
	return c
}

// String is TYPE:FACTOR, "" where nothing is scaled.
func (s RopeScaling) String() string {
	if !s.scales() {
		return ""
	}
	return string(s.Type) + ":" + strconv.FormatFloat(s.Factor, 'g', -1, 64)
}

// context is the context length that the frequencies for n tokens are made for. Only dynamic scaling tells lengths apart.
func (c Config) context(n int) int {
	if c.RopeScaling.Type == RopeDynamic {
		return max(n, c.RopeScaling.Original)
	}
	return 0
}

// frequencies returns RoPE's angle per position for each pair of a head's elements, [HeadDim/2], in contexts of n tokens, and the
// factor on cosines and sines. Results are rounded to fp32 where the implementations that models are trained and used with round.
func (c Config) frequencies(n int) (frequency []float32, attention float32) {
	s, base := c.RopeScaling, c.RopeTheta
	if s.Type == RopeDynamic {
		longer := s.Factor*float64(c.context(n))/float64(s.Original) - (s.Factor - 1)
		base *= math.Pow(longer, float64(c.HeadDim)/float64(c.HeadDim-2))
	}
	frequency = make([]float32, c.HeadDim/2)
	for i := range frequency {
		exponent := float32(2*i) / float32(c.HeadDim)
		frequency[i] = 1 / float32(math.Pow(base, float64(exponent)))
	}
	switch s.Type {
	case RopeLinear:
		for i := range frequency {
			frequency[i] /= float32(s.Factor)
		}
	case RopeLlama3:
		s.llama3(frequency)
	case RopeYarn:
		s.yarn(frequency, base)
		return frequency, float32(s.AttentionFactor)
	}
	return frequency, 1
}

// llama3 divides the frequencies of long wavelengths, and those between LowFreqFactor and HighFreqFactor turns in Original
// positions in part.
func (s RopeScaling) llama3(frequency []float32) {
	for i, f := range frequency {
		turns := float64(s.Original) * float64(f) / (2 * math.Pi)
		whole := min(max((turns-s.LowFreqFactor)/(s.HighFreqFactor-s.LowFreqFactor), 0), 1) // the part that is kept
		frequency[i] = float32((1-whole)*float64(f)/s.Factor + whole*float64(f))
	}
}

// yarn divides the frequencies on a ramp: none that makes more than BetaFast turns in Original positions, whole those with fewer
// than BetaSlow.
func (s RopeScaling) yarn(frequency []float32, base float64) {
	dim := float64(2 * len(frequency))
	// index is the (fractional) one of the frequency that makes so many turns, among dim/2.
	index := func(turns float64) float64 {
		return dim * math.Log(float64(s.Original)/(turns*2*math.Pi)) / (2 * math.Log(base))
	}
	low, high := index(s.BetaFast), index(s.BetaSlow)
	if !s.Exact {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, dim-1)
	if low == high {
		high += 0.001
	}
	for i, f := range frequency {
		scaled := min(max((float64(i)-low)/(high-low), 0), 1)
		frequency[i] = float32(scaled*float64(f)/s.Factor + (1-scaled)*float64(f))
	}
}

// ropeTables returns the cosines and sines of position * frequency for contexts of n tokens and every position below rows, [rows,
// HeadDim/2]. Angles are rounded to fp32 because the implementations that models are trained and used with round there; at
// position 4,000 exact angles would differ from theirs by up to 2e-4.
func ropeTables(c Config, n, rows int) (cos, sin []float32) {
	frequency, attention := c.frequencies(n)
	half := len(frequency)
	cos, sin = make([]float32, rows*half), make([]float32, rows*half)
	for i, f := range frequency {
		for pos := range rows {
			angle := float64(float32(pos) * f)
			cos[pos*half+i] = attention * float32(math.Cos(angle))
			sin[pos*half+i] = attention * float32(math.Sin(angle))
		}
	}
	return cos, sin
}

// hfRoPE is rope_scaling or rope_parameters of config.json.
type hfRoPE struct {
	Theta    *float64 `json:"rope_theta,omitempty"`
	RopeType string   `json:"rope_type,omitempty"`
	Type     string   `json:"type,omitempty"` // the older name of rope_type
	Factor   *float64 `json:"factor,omitempty"`
	Original *int     `json:"original_max_position_embeddings,omitempty"`

	LowFreqFactor  *float64 `json:"low_freq_factor,omitempty"`
	HighFreqFactor *float64 `json:"high_freq_factor,omitempty"`

	BetaFast        *float64 `json:"beta_fast,omitempty"`
	BetaSlow        *float64 `json:"beta_slow,omitempty"`
	AttentionFactor *float64 `json:"attention_factor,omitempty"`
	MScale          *float64 `json:"mscale,omitempty"`
	MScaleAllDim    *float64 `json:"mscale_all_dim,omitempty"`
	Truncate        *bool    `json:"truncate,omitempty"`

	PartialRotaryFactor *float64 `json:"partial_rotary_factor,omitempty"`
}

// scaling reads what config.json says, for a model of maxSeq positions (max_position_embeddings).
func (r *hfRoPE) scaling(maxSeq int) (RopeScaling, error) {
	if r == nil {
		return RopeScaling{}, nil
	}
	if or(r.PartialRotaryFactor, 1) != 1 {
		return RopeScaling{}, fmt.Errorf("partial_rotary_factor is %v: only models that turn whole heads are supported", *r.PartialRotaryFactor)
	}
	s := RopeScaling{Type: RopeType(r.RopeType)}
	if s.Type == "" {
		s.Type = RopeType(r.Type)
	}
	switch s.Type {
	case "", ropeDefault:
		return RopeScaling{}, nil
	case RopeLinear, RopeDynamic, RopeYarn, RopeLlama3:
	default:
		return RopeScaling{}, fmt.Errorf("rope_type is %q: only default, linear, dynamic, yarn and llama3 are supported", s.Type)
	}
	switch {
	case r.Factor != nil:
		s.Factor = *r.Factor
	case s.Type == RopeYarn && r.Original != nil && *r.Original > 0:
		s.Factor = float64(maxSeq) / float64(*r.Original)
	default:
		return RopeScaling{}, fmt.Errorf("rope_type %s has no factor", s.Type)
	}
	switch s.Type {
	case RopeDynamic: // counts from max_position_embeddings, whatever else is stated
		s.Original = maxSeq
	case RopeYarn:
		s.Original = or(r.Original, maxSeq)
		s.BetaFast, s.BetaSlow = or(r.BetaFast, 32), or(r.BetaSlow, 1)
		s.Exact = !or(r.Truncate, true)
		s.AttentionFactor = or(r.AttentionFactor, r.attentionFactor(s.Factor))
	case RopeLlama3:
		if r.LowFreqFactor == nil || r.HighFreqFactor == nil {
			return RopeScaling{}, errors.New("rope_type llama3 needs low_freq_factor and high_freq_factor")
		}
		s.Original = or(r.Original, maxSeq)
		s.LowFreqFactor, s.HighFreqFactor = *r.LowFreqFactor, *r.HighFreqFactor
	}
	return s, nil
}

// attentionFactor is what YaRN takes where config.json states none.
func (r *hfRoPE) attentionFactor(factor float64) float64 {
	scale := func(by float64) float64 {
		if factor <= 1 {
			return 1
		}
		return 0.1*by*math.Log(factor) + 1
	}
	if m, all := or(r.MScale, 0), or(r.MScaleAllDim, 0); m != 0 && all != 0 {
		return scale(m) / scale(all)
	}
	return scale(1)
}

// hf is the reverse of hfRoPE.scaling, without the base.
func (s RopeScaling) hf() *hfRoPE {
	if !s.scales() {
		return nil
	}
	r := &hfRoPE{RopeType: string(s.Type), Factor: &s.Factor}
	switch s.Type {
	case RopeYarn:
		truncate := !s.Exact
		r.Original, r.BetaFast, r.BetaSlow, r.AttentionFactor, r.Truncate = &s.Original, &s.BetaFast, &s.BetaSlow, &s.AttentionFactor, &truncate
	case RopeLlama3:
		r.Original, r.LowFreqFactor, r.HighFreqFactor = &s.Original, &s.LowFreqFactor, &s.HighFreqFactor
	}
	return r
}
