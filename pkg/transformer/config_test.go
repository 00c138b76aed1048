package transformer

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// The parameter counts of the reference configurations, in millions as the reference rounds them, and exactly: by hand,
// 2 vocab dim + layers (2 dim heads headDim + 2 dim kvHeads headDim + 3 dim ffn + 2 dim) + dim.
func TestPresetParameters(t *testing.T) {
	for _, p := range []struct {
		name     string
		exact    int64
		millions float64
	}{
		{"meap-0.1b", 2*32064*768 + 12*(2*768*768+2*768*128+3*768*2048+2*768) + 768, 122.4},
		{"meap-0.3b", 2*32064*1024 + 24*(2*1024*1024+2*1024*128+3*1024*2736+2*1024) + 1024, 324.1},
		{"meap-0.5b", 2*32064*1024 + 24*(2*1024*1024+2*1024*128+3*1024*4864+2*1024) + 1024, 481.0},
		{"meap-1b", 2*32064*2048 + 24*(2*2048*2048+2*2048*128+3*2048*5632+2*2048) + 2048, 1175.8},
	} {
		c, err := Preset(p.name)
		if err != nil {
			t.Fatal(err)
		}
		n := c.Parameters()
		if n != p.exact {
			t.Errorf("%s has %d parameters, want %d", p.name, n, p.exact)
		}
		if rounded := math.Round(float64(n)/1e5) / 10; rounded != p.millions {
			t.Errorf("%s has %.1f M parameters, the reference %.1f M", p.name, rounded, p.millions)
		}
	}
}

func TestPresetsAreValidOnceSized(t *testing.T) {
	var last int64
	for _, name := range Presets() {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if c.Vocab == 0 {
			c.Vocab, c.MaxSeq = PadVocab(259), 256
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := c.Parameters(); n <= last {
			t.Errorf("%s has %d parameters, the one listed before it %d", name, n, last)
		} else {
			last = n
		}
		if c.Heads*c.HeadDim != c.Dim {
			t.Errorf("%s: %d heads of %d are not the hidden size %d", name, c.Heads, c.HeadDim, c.Dim)
		}
	}
	if _, err := Preset("meap-2b"); err == nil || !strings.Contains(err.Error(), strings.Join(Presets(), ", ")) {
		t.Errorf("an unknown preset: %v", err)
	}
}

func TestPadVocab(t *testing.T) {
	for n, want := range map[int]int{1: 64, 64: 64, 65: 128, 259: 320, 32001: 32064} {
		if got := PadVocab(n); got != want {
			t.Errorf("PadVocab(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	c := Config{Layers: 0, Heads: 3, KVHeads: 2, HeadDim: 7, Dim: -1, FFN: 1 << 30, Vocab: 0, MaxSeq: 0, RopeTheta: math.NaN(), NormEps: 1}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"layers", "kv_heads", "head_dim", "dim", "ffn", "vocab", "max_seq", "rope_theta", "norm_eps"} {
		if !strings.Contains(err.Error(), "model."+key+" = ") {
			t.Errorf("model.%s is not named in: %v", key, err)
		}
	}
	if strings.Contains(err.Error(), "model.heads = ") {
		t.Errorf("model.heads is fine, yet named in: %v", err)
	}
}

// By hand for 1 layer, dim 4, 2 heads of 2, 1 kv head, ffn 8, vocab 10: the block has 16+8+8+16+3*32+8 = 152 weights, the final
// norm 4, embedding and head 40 each. Per token in rows of 6: 6 (152+4+40) + 6*1*4*6.
func TestFLOPsPerToken(t *testing.T) {
	c := Config{Layers: 1, Heads: 2, KVHeads: 1, HeadDim: 2, Dim: 4, FFN: 8, Vocab: 10, MaxSeq: 8, RopeTheta: 10000, NormEps: 1e-5}
	if n := c.Parameters(); n != 152+4+80 {
		t.Errorf("%d parameters", n)
	}
	want := float64(6*196 + 144)
	if got := c.FLOPsPerToken(6); got != want {
		t.Errorf("FLOPsPerToken = %v, want %v", got, want)
	}
	c.TieEmbeddings = true
	if got := c.FLOPsPerToken(6); got != want {
		t.Errorf("tied: FLOPsPerToken = %v, want %v: the head multiplies all the same", got, want)
	}
}

func TestWeightsListsTheModelInOrder(t *testing.T) {
	c := Config{Layers: 1, Heads: 2, KVHeads: 1, HeadDim: 2, Dim: 4, FFN: 8, Vocab: 10, MaxSeq: 8, RopeTheta: 10000, NormEps: 1e-5, QKVBias: true}
	var got []string
	for _, w := range c.Weights() {
		got = append(got, w.Name)
	}
	want := []string{
		"model.embed_tokens.weight",
		"model.layers.0.input_layernorm.weight",
		"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
		"model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.k_proj.bias", "model.layers.0.self_attn.v_proj.bias",
		"model.layers.0.self_attn.o_proj.weight",
		"model.layers.0.post_attention_layernorm.weight",
		"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
		"model.norm.weight", "lm_head.weight",
	}
	if !slices.Equal(got, want) {
		t.Errorf("weights:\n%v\nwant\n%v", got, want)
	}
}
