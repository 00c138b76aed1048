package transformer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/internal/durable"
	"meap/pkg/graph"
)

// tiny is a model with two kv heads shared by four query heads, of which no two sizes are equal.
var tiny = Config{Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Dim: 24, FFN: 40, Vocab: 50, MaxSeq: 32, RopeTheta: 10000, NormEps: 1e-5}

func with(c Config, change func(*Config)) Config {
	change(&c)
	return c
}

func sameWeights(t *testing.T, got, want *Weights) {
	t.Helper()
	if got.Config != want.Config {
		t.Fatalf("config %+v, want %+v", got.Config, want.Config)
	}
	for i, w := range want.Tensors {
		g := got.Tensors[i]
		if g.Name != w.Name || !slices.Equal(g.Shape, w.Shape) || !slices.Equal(g.Data, w.Data) {
			t.Fatalf("tensor %s %v differs from %s %v", g.Name, g.Shape, w.Name, w.Shape)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	for name, c := range map[string]Config{
		"llama":   tiny,
		"tied":    with(tiny, func(c *Config) { c.TieEmbeddings = true }),
		"qwen2":   with(tiny, func(c *Config) { c.QKVBias, c.RopeTheta, c.NormEps = true, 1e6, 1e-6 }),
		"oddHead": with(tiny, func(c *Config) { c.HeadDim = 10 }),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "model")
			w := Init(c, 1)
			if err := Save(dir, w); err != nil {
				t.Fatal(err)
			}
			got, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			sameWeights(t, got, w)
			entries, _ := os.ReadDir(dir)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if want := []string{configFile, generationFile, weightsFile}; !slices.Equal(names, want) {
				t.Errorf("the folder holds %v, want %v", names, want)
			}
		})
	}
}

func TestSaveInBF16(t *testing.T) {
	dir := t.TempDir()
	w := Init(tiny, 1)
	if err := Save(dir, w, InBF16()); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.Tensors {
		for j, v := range w.Tensors[i].Data {
			w.Tensors[i].Data[j] = graph.RoundBF16(v)
		}
	}
	sameWeights(t, got, w)
	var h hfConfig
	if err := readJSON(filepath.Join(dir, configFile), &h); err != nil || h.TorchDtype != "bfloat16" {
		t.Errorf("torch_dtype %q, %v", h.TorchDtype, err)
	}
}

func TestSpecialTokens(t *testing.T) {
	for _, s := range []SpecialTokens{{BOS: -1}, {BOS: 0, EOS: []int32{7}}, {BOS: 3, EOS: []int32{4, 5}}} {
		dir := t.TempDir()
		if err := Save(dir, Init(tiny, 1), WithTokens(s)); err != nil {
			t.Fatal(err)
		}
		for _, remove := range []string{"", generationFile} { // config.json says it too
			os.Remove(filepath.Join(dir, remove))
			if got, err := LoadSpecialTokens(dir); err != nil || got.BOS != s.BOS || !slices.Equal(got.EOS, s.EOS) {
				t.Errorf("without %q: %+v, %v, want %+v", remove, got, err, s)
			}
		}
	}
}

// As Llama 3's instruct models have it, generation_config.json names more than config.json does, and goes before it.
func TestGenerationConfigGoesFirst(t *testing.T) {
	dir := t.TempDir()
	if err := Save(dir, Init(tiny, 1), WithTokens(SpecialTokens{BOS: 1, EOS: []int32{2}})); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int32{
		`{"eos_token_id": [2, 3, 4]}`: {2, 3, 4}, `{"eos_token_id": 5}`: {5}, `{"eos_token_id": null}`: {2}, `{"temperature": 0.6}`: {2},
	} {
		if err := os.WriteFile(filepath.Join(dir, generationFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadSpecialTokens(dir); err != nil || got.BOS != 1 || !slices.Equal(got.EOS, want) {
			t.Errorf("%s: %+v, %v, want %v", text, got, err, want)
		}
	}
}

// split rewrites a model folder as two shards with an index.
func split(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, weightsFile)
	all, _, err := ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	half := len(all) / 2
	files := map[string][]Tensor{"model-00001-of-00002.safetensors": all[:half], "model-00002-of-00002.safetensors": all[half:]}
	weightMap := map[string]string{}
	for name, tensors := range files {
		if err := WriteTensors(filepath.Join(dir, name), tensors, nil); err != nil {
			t.Fatal(err)
		}
		for _, x := range tensors {
			weightMap[x.Name] = name
		}
	}
	if err := writeJSON(filepath.Join(dir, indexFile), map[string]any{"weight_map": weightMap}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestLoadShards(t *testing.T) {
	dir := t.TempDir()
	w := Init(tiny, 1)
	if err := Save(dir, w); err != nil {
		t.Fatal(err)
	}
	split(t, dir)
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	sameWeights(t, got, w)

	os.Remove(filepath.Join(dir, "model-00002-of-00002.safetensors"))
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "model-00002-of-00002") {
		t.Errorf("a missing shard: %v", err)
	}
	outside := map[string]any{"weight_map": map[string]string{"model.norm.weight": "../other.safetensors"}}
	if err := writeJSON(filepath.Join(dir, indexFile), outside); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "../other.safetensors") {
		t.Errorf("a shard outside the folder: %v", err)
	}
}

func TestLoadNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string, tensors []Tensor) []Tensor
		want   []string
	}{
		"missing and unexpected": {func(_ string, ts []Tensor) []Tensor {
			ts[0].Name = "foo.weight"
			return ts
		}, []string{"lm_head.weight is missing", "foo.weight is unexpected"}},
		"shape": {func(_ string, ts []Tensor) []Tensor {
			ts[0].Shape = []int{ts[0].Shape[1], ts[0].Shape[0]}
			return ts
		}, []string{"lm_head.weight has shape [24 50], want [50 24]"}},
		"many": {func(_ string, ts []Tensor) []Tensor { return ts[:1] }, []string{"and 12 more"}},
		"no weights": {func(dir string, ts []Tensor) []Tensor {
			os.Remove(filepath.Join(dir, weightsFile))
			return nil
		}, []string{"holds no weights"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := Save(dir, Init(tiny, 1)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, weightsFile)
			tensors, _, err := ReadTensors(path)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
			if tensors = c.change(dir, tensors); tensors != nil {
				if err := WriteTensors(path, tensors, nil); err != nil {
					t.Fatal(err)
				}
			}
			_, err = Load(dir)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(c.want, dir) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestRedundantTensorsAreIgnored(t *testing.T) {
	dir := t.TempDir()
	w := Init(with(tiny, func(c *Config) { c.TieEmbeddings = true }), 1)
	if err := Save(dir, w); err != nil {
		t.Fatal(err)
	}
	more := append(slices.Clone(w.Tensors),
		Tensor{"lm_head.weight", []int{1}, []float32{1}},
		Tensor{"model.layers.0.self_attn.rotary_emb.inv_freq", []int{3}, []float32{1, 2, 3}})
	if err := WriteTensors(filepath.Join(dir, weightsFile), more, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	sameWeights(t, got, w)
}

// config.json as other tools write it: keys absent that have a default in transformers, and keys that ask for another model.
func TestLoadConfig(t *testing.T) {
	base := `"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 24, "intermediate_size": 40, "vocab_size": 50`
	defaults := Config{Layers: 2, Heads: 4, KVHeads: 4, HeadDim: 6, Dim: 24, FFN: 40, Vocab: 50, MaxSeq: 2048, RopeTheta: 10000, NormEps: 1e-6}
	for _, c := range []struct {
		json, err string
		want      Config
	}{
		{json: `{"model_type": "llama", ` + base + `}`, want: defaults},
		{json: `{"model_type": "llama", "rope_theta": 500000, "head_dim": null, "rope_scaling": null, "eos_token_id": [1, 2], ` + base + `}`,
			want: with(defaults, func(c *Config) { c.RopeTheta = 500000 })},
		{json: `{"model_type": "llama", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "head_dim": 8, ` + base + `}`,
			want: with(defaults, func(c *Config) { c.RopeTheta, c.HeadDim = 1e6, 8 })},
		{json: `{"model_type": "qwen2", "tie_word_embeddings": true, "num_key_value_heads": 1, ` + base + `}`,
			want: with(defaults, func(c *Config) { c.QKVBias, c.TieEmbeddings, c.KVHeads, c.MaxSeq = true, true, 1, 32768 })},
		{json: `{"model_type": "gpt2", ` + base + `}`, err: `model_type "gpt2"`},
		{json: `{"model_type": "llama"}`, err: "hidden_size is missing"},
		{json: `{"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0}, ` + base + `}`, err: "rope_scaling"},
		{json: `{"model_type": "llama", "rope_scaling": {"type": "longrope", "factor": 8.0}, ` + base + `}`, err: `rope_type is "longrope"`},
		{json: `{"model_type": "llama", "rope_parameters": {"rope_type": "linear", "partial_rotary_factor": 0.5}, ` + base + `}`, err: "partial_rotary_factor"},
		{json: `{"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 0.5}, ` + base + `}`, err: "rope_scaling.factor = 0.5"},
		{json: `{"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 8.0}, "rope_parameters": {"rope_theta": 500}, ` + base + `}`,
			want: with(defaults, func(c *Config) { c.RopeTheta, c.RopeScaling = 500, RopeScaling{Type: RopeLinear, Factor: 8} })},
		{json: `{"model_type": "llama", "attention_bias": true, ` + base + `}`, err: "attention_bias"},
		{json: `{"model_type": "llama", "mlp_bias": true, ` + base + `}`, err: "mlp_bias"},
		{json: `{"model_type": "llama", "hidden_act": "gelu", ` + base + `}`, err: "hidden_act"},
		{json: `{"model_type": "qwen2", "use_sliding_window": true, ` + base + `}`, err: "use_sliding_window"},
		{json: `{"model_type": "llama", "num_key_value_heads": 3, ` + base + `}`, err: "must divide"},
		{json: `{"model_type": "llama", "vocab_size": "many"}`, err: configFile},
		{json: `{"model_type": "llama", `, err: configFile},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(c.json), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := LoadConfig(dir)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s:\n%+v, %v\nwant %+v", c.json, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), dir)):
			t.Errorf("%s: error %v, want one with %q and the folder", c.json, err, c.err)
		}
	}
	if _, err := LoadConfig(t.TempDir()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not a model folder") {
		t.Errorf("an empty folder: %v", err)
	}
}

// A failing save leaves the old folder as it was, and no temporary files.
func TestSaveKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, weightsFile)
	old := Tensor{"a", []int{1}, []float32{1}}
	if err := WriteTensors(path, []Tensor{old}, nil); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	for _, bad := range [][]Tensor{
		{old, old},
		{{"a", []int{2}, []float32{1}}},
	} {
		if err := WriteTensors(path, bad, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	w := Init(tiny, 1)
	w.Tensors = w.Tensors[1:]
	if err := Save(dir, w); err == nil {
		t.Error("weights with a tensor missing were saved")
	}
	failure := errors.New("disk full")
	if err := durable.Replace(path, func(io.Writer) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("replaceFile: %v", err)
	}
	after, _ := os.ReadFile(path)
	entries, _ := os.ReadDir(dir)
	if !bytes.Equal(before, after) || len(entries) != 1 {
		t.Errorf("the folder changed: %v", entries)
	}
}

func TestTensorsKeepMetaAndScalars(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	want := []Tensor{{"a", []int{2, 3}, []float32{1, 2, 3, 4, 5, 6}}, {"b", []int{}, []float32{7}}, {"c", []int{0, 4}, []float32{}}}
	if err := WriteTensors(path, want, map[string]string{"step": "12"}); err != nil {
		t.Fatal(err)
	}
	got, meta, err := ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	if meta["step"] != "12" || len(got) != len(want) {
		t.Fatalf("%v, meta %v", got, meta)
	}
	for i := range want {
		if got[i].Name != want[i].Name || !slices.Equal(got[i].Shape, want[i].Shape) || !slices.Equal(got[i].Data, want[i].Data) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// file is a safetensors file with this header and payload.
func file(header string, payload []byte) []byte {
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), []byte(header), payload)
}

func TestHalfPrecision(t *testing.T) {
	path := filepath.Join(t.TempDir(), "half.safetensors")
	var payload []byte
	bits := []uint16{0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x03ff, 0x83ff, 0x3555, 0x7c00, 0xfc00, 0x7e00}
	for _, b := range bits {
		payload = binary.LittleEndian.AppendUint16(payload, b)
	}
	header := `{"x": {"dtype": "F16", "shape": [13], "data_offsets": [0, 26]}}`
	if err := os.WriteFile(path, file(header, payload), 0o644); err != nil {
		t.Fatal(err)
	}
	got, _, err := ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	inf := float32(math.Inf(1))
	want := []float32{0, float32(math.Copysign(0, -1)), 1, -2, 65504, 0x1p-14, 0x1p-24, 1023 * 0x1p-24, -1023 * 0x1p-24, 0.333251953125, inf, -inf}
	for i, w := range want {
		if math.Float32bits(got[0].Data[i]) != math.Float32bits(w) {
			t.Errorf("%#04x is %v, want %v", bits[i], got[0].Data[i], w)
		}
	}
	if v := got[0].Data[12]; v == v {
		t.Errorf("0x7e00 is %v, want NaN", v)
	}
}

func TestForeignTensorFiles(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.safetensors")
	if err := WriteTensors(good, []Tensor{{"a", []int{4}, []float32{1, 2, 3, 4}}}, nil); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(good)
	cases := map[string][]byte{
		"text":          []byte("this is no safetensors file, but long enough to hold a length"),
		"huge header":   binary.LittleEndian.AppendUint64(nil, 1<<62),
		"long":          append(slices.Clone(whole), 0),
		"int tensor":    file(`{"x": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}`, make([]byte, 8)),
		"unknown dtype": file(`{"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}`, make([]byte, 1)),
		"overlap":       file(`{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}`, make([]byte, 4)),
		"gap":           file(`{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}`, make([]byte, 8)),
		"overflow":      file(`{"x": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}`, nil),
		"empty, large":  file(`{"x": {"dtype": "F32", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}}`, nil),
	}
	for n := range whole {
		cases[fmt.Sprintf("cut to %d bytes", n)] = whole[:n]
	}
	for name, data := range cases {
		path := filepath.Join(dir, "bad.safetensors")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if ts, _, err := ReadTensors(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, ts, err)
		}
	}
	if _, _, err := ReadTensors(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder: %v", err)
	}
}

func FuzzReadTensors(f *testing.F) {
	f.Add([]byte("not one"))
	f.Add(file(`{"x": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "__metadata__": {"a": "b"}}`, []byte{1, 2}))
	f.Add(file(`{"x": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}`, []byte{1, 2}))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.safetensors")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		tensors, meta, err := ReadTensors(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		for _, x := range tensors {
			if n := (graph.Desc{Shape: x.Shape}).Elems(); n != len(x.Data) {
				t.Fatalf("tensor of shape %v has %d elements", x.Shape, len(x.Data))
			}
		}
		if err := WriteTensors(path, tensors, meta); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

func FuzzLoadConfig(f *testing.F) {
	raw, _ := json.Marshal(tiny.hf())
	f.Add(raw)
	f.Add([]byte(`{"model_type": "llama", "num_attention_heads": 0, "hidden_size": 24}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, configFile), data, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(dir)
		if err == nil && c.Validate() != nil {
			t.Errorf("%s gave %+v", data, c)
		}
		if err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("the error does not name the folder: %v", err)
		}
	})
}
