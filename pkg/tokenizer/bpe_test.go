package tokenizer

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// randomModel returns a byte-level model over a small alphabet with random
// merges, in an order that no training would give: a token's merge may come
// before those that make its parts, and a token may have several.
func randomModel(r *rand.Rand) (*modelDefinition, string) {
	alphabet := "abcd"[:1+r.IntN(4)]
	d := &modelDefinition{Type: "BPE", Vocab: map[string]int32{}}
	var tokens []string
	add := func(s string) {
		if _, ok := d.Vocab[s]; !ok {
			d.Vocab[s] = int32(len(d.Vocab))
			tokens = append(tokens, s)
		}
	}
	for _, s := range byteCharacters() {
		d.Vocab[s] = int32(len(d.Vocab))
	}
	for _, c := range alphabet {
		tokens = append(tokens, string(c))
	}
	for range r.IntN(25) {
		a, b := tokens[r.IntN(len(tokens))], tokens[r.IntN(len(tokens))]
		if len(a)+len(b) > 12 {
			continue
		}
		add(a + b)
		d.Merges = append(d.Merges, mergePair{a, b})
	}
	if r.IntN(2) == 0 {
		r.Shuffle(len(d.Merges), func(i, j int) { d.Merges[i], d.Merges[j] = d.Merges[j], d.Merges[i] })
	}
	return d, alphabet
}

// plainBPE is the definition of BPE: the merge that comes first in the list is
// done, of equal ones the leftmost, until there is none.
func plainBPE(d *modelDefinition, word string) []int32 {
	rank := map[mergePair]int{}
	for i, p := range d.Merges {
		rank[p] = i
	}
	parts := strings.Split(word, "")
	for {
		best, at := len(d.Merges), -1
		for i := 1; i < len(parts); i++ {
			if r, ok := rank[mergePair{parts[i-1], parts[i]}]; ok && r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			break
		}
		parts[at-1] += parts[at]
		parts = slices.Delete(parts, at, at+1)
	}
	ids := []int32{}
	for _, p := range parts {
		ids = append(ids, d.Vocab[p])
	}
	return ids
}

// However a word is cut for speed (where no merge joins, and in windows), its
// tokens are those of the definition.
func TestCutsAndWindowsChangeNothing(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 500
	}
	longWords, cutWords := 0, 0
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 7))
		d, alphabet := randomModel(r)
		m, err := newModel(d, true)
		if err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 1+r.IntN(200))
		for i := range word {
			word[i] = alphabet[r.IntN(len(alphabet))]
			if i > 0 && r.IntN(3) == 0 {
				word[i] = word[i-1]
			}
		}
		want := plainBPE(d, string(word))
		for _, window := range []int{1, 3, 8, 30, 1000} {
			g := &merger{m: m, window: window}
			if got := g.word(word, []int32{}); !slices.Equal(got, want) {
				t.Fatalf("seed %d, window %d: %q of %v: %v, want %v", seed, window, word, d.Merges, got, want)
			}
			if len(word) > window {
				longWords++
			}
			var parts []int32
			for rest := word; len(rest) > 0; {
				n := m.cut(rest)
				parts = g.word(rest[:n], parts)
				if n < len(rest) {
					cutWords++
				}
				rest = rest[n:]
			}
			if !slices.Equal(parts, want) {
				t.Fatalf("seed %d: %q of %v in parts: %v, want %v", seed, word, d.Merges, parts, want)
			}
		}
	}
	if longWords < rounds || cutWords < rounds {
		t.Errorf("only %d windows and %d cuts", longWords, cutWords)
	}
}

// small is a tokenizer.json of a byte-level vocabulary with a merge.
func small(change func(map[string]any)) []byte {
	vocab := map[string]any{}
	for b, s := range byteCharacters() {
		vocab[s] = b
	}
	vocab["ab"] = 256
	d := map[string]any{
		"added_tokens":  []any{map[string]any{"id": 257, "content": "</s>", "special": true}, map[string]any{"id": 300, "content": "[MASK]", "special": true}},
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false},
		"decoder":       map[string]any{"type": "ByteLevel"},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []any{"a b"}},
	}
	if change != nil {
		change(d)
	}
	data, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return data
}

func TestSmallTokenizer(t *testing.T) {
	tok, err := parse(small(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode([]byte("ab[MASK]\xffba</s>"), []int32{7}); !slices.Equal(got, []int32{7, 256, 300, 0xFF, 'b', 'a', 257}) {
		t.Errorf("ids %v", got)
	}
	if tok.VocabSize() != 301 || tok.BOS() != -1 || tok.EOS() != 257 || tok.Mask() != 300 || !slices.Equal(tok.Special(), []int32{257, 300}) {
		t.Errorf("%d %d %d %d %v", tok.VocabSize(), tok.BOS(), tok.EOS(), tok.Mask(), tok.Special())
	}
	if got := string(tok.Decode([]int32{257, 256, 280, -1, 301, 300, 0xC3, 0xA9})); got != "</s>ab\uFFFD\uFFFD\uFFFD[MASK]é" {
		t.Errorf("decoded %q", got)
	}
}

func TestSpecialTokensOfTheConfiguration(t *testing.T) {
	for config, want := range map[string][3]int32{
		`{}`: {-1, 257, 300},
		`{"bos_token": "</s>", "eos_token": {"content": "[MASK]"}, "mask_token": null}`: {257, 300, 300},
		`{"bos_token": null, "eos_token": null, "mask_token": "ab"}`:                    {-1, -1, 256},
	} {
		tok, err := parse(small(nil), []byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int32{tok.BOS(), tok.EOS(), tok.Mask()}; got != want {
			t.Errorf("%s: %v, want %v", config, got, want)
		}
	}
	for _, config := range []string{`{"bos_token": "<bos>"}`, `{"eos_token": 3}`, `[]`, `{`} {
		if _, err := parse(small(nil), []byte(config)); err == nil || !strings.Contains(err.Error(), ConfigFile) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestUnsupportedNamesTheField(t *testing.T) {
	model := func(key string, v any) func(map[string]any) {
		return func(d map[string]any) { d["model"].(map[string]any)[key] = v }
	}
	top := func(key, value string) func(map[string]any) {
		return func(d map[string]any) { d[key] = json.RawMessage(value) }
	}
	deep := strings.Repeat(`{"type":"Sequence","normalizers":[`, 40) + `{"type":"NFC"}` + strings.Repeat(`]}`, 40)
	for field, change := range map[string]func(map[string]any){
		"model.type":                      model("type", "Unigram"),
		"model.dropout":                   model("dropout", 0.1),
		"model.continuing_subword_prefix": model("continuing_subword_prefix", "##"),
		"model.end_of_word_suffix":        model("end_of_word_suffix", "</w>"),
		"model.unk_token":                 model("unk_token", "<unk>"),
		"model.merges[0]":                 model("merges", []any{"x y"}),
		"model.merges":                    model("merges", []any{[]any{"a", "b", "c"}}),
		"not two tokens":                  model("merges", []any{"a b c"}),
		"model.vocab: the id":             model("vocab", map[string]any{"a": -1}),
		"the same id":                     model("vocab", map[string]any{"a": 1, "b": 1}),
		"added_tokens[0].id":              top("added_tokens", `[{"id": 3, "content": "a"}]`),
		"added_tokens[1].id":              top("added_tokens", `[{"id": 500, "content": "xx"}, {"id": 500, "content": "yy"}]`),
		"added_tokens: ":                  top("added_tokens", `[{"id": 97, "content": "xx"}]`),
		"normalizer.type":                 top("normalizer", `{"type": "BertNormalizer"}`),
		"normalizer.normalizers[1].type":  top("normalizer", `{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}`),
		"normalizer.pattern.Regex":        top("normalizer", `{"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}`),
		"normalizer.pattern.String":       top("normalizer", `{"type": "Replace", "pattern": {"String": ""}, "content": " "}`),
		"nested more than":                top("normalizer", deep),
		"pre_tokenizer.type":              top("pre_tokenizer", `{"type": "Whitespace"}`),
		"pre_tokenizer.pattern.Regex":     top("pre_tokenizer", `{"type": "Split", "pattern": {"Regex": "\\s"}, "behavior": "Isolated", "invert": false}`),
		"pre_tokenizer.behavior":          top("pre_tokenizer", `{"type": "Split", "pattern": {"String": "x"}, "behavior": "Other", "invert": false}`),
		"pre_tokenizer.pretokenizers[1]":  top("pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits", "individual_digits": true}]}`),
		"pre_tokenizer.replacement":       top("pre_tokenizer", `{"type": "Metaspace", "replacement": "__"}`),
		"pre_tokenizer.prepend_scheme":    top("pre_tokenizer", `{"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}`),
		"pre_tokenizer: json":             top("pre_tokenizer", `{"type": "ByteLevel", "new_field": 1}`),
		"decoder is null":                 top("decoder", `null`),
		"decoder.type":                    top("decoder", `{"type": "WordPiece"}`),
		"decoder.decoders[1].type":        top("decoder", `{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}`),
		"decoder.decoders[1].content":     top("decoder", `{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "ab", "start": 1, "stop": 0}]}`),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), small(change), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Load(dir)
		if err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), filepath.Join(dir, File)) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestAddMask(t *testing.T) {
	without := small(func(d map[string]any) {
		d["added_tokens"] = []any{map[string]any{"id": 257, "content": "</s>", "special": true}}
	})
	config := []byte(`{"eos_token": "</s>", "chat_template": "x", "added_tokens_decoder": {"257": {"content": "</s>"}}}`)
	tok, err := parse(without, config)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Mask() != -1 {
		t.Fatalf("it has %s already", MaskToken)
	}
	masked, err := AddMask(tok)
	if err != nil {
		t.Fatal(err)
	}
	if masked.Mask() != 258 || masked.EOS() != 257 || masked.VocabSize() != 259 || masked.Fingerprint() == tok.Fingerprint() {
		t.Errorf("%d %d %d", masked.Mask(), masked.EOS(), masked.VocabSize())
	}
	if got := masked.Encode([]byte("ab[MASK]"), nil); !slices.Equal(got, []int32{256, 258}) {
		t.Errorf("ids %v", got)
	}
	if again, err := AddMask(masked); again != masked || err != nil {
		t.Error("a second [MASK]", err)
	}
	dir := t.TempDir()
	if err := masked.Save(dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir)
	if err != nil || loaded.Fingerprint() != masked.Fingerprint() {
		t.Errorf("saved and loaded: %v, %v", loaded, err)
	}
	saved, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil || !bytes.Contains(saved, []byte("chat_template")) || !bytes.Contains(saved, []byte(`"258"`)) {
		t.Errorf("%s, %v", saved, err)
	}
}

func TestLlama2GetsMaskWhereThePaperHasIt(t *testing.T) {
	tok, err := Load(llama2(t))
	if err != nil {
		t.Fatal(err)
	}
	masked, err := AddMask(tok)
	if err != nil || masked.Mask() != 32000 || masked.BOS() != 1 || masked.EOS() != 2 {
		t.Fatalf("%v, %v", masked, err)
	}
	// As Hugging Face does it, each text between added tokens begins with a blank of its own.
	if got := masked.Encode([]byte("the[MASK]the"), nil); !slices.Equal(got, []int32{278, 32000, 278}) {
		t.Errorf("ids %v", got)
	}
}

func TestFingerprintFollowsWhatDecidesIds(t *testing.T) {
	seen := map[string]int{}
	for i, file := range [][]byte{
		small(nil),
		small(func(d map[string]any) { d["normalizer"] = map[string]any{"type": "NFC"} }),
		small(func(d map[string]any) { d["model"].(map[string]any)["merges"] = []any{} }),
		small(func(d map[string]any) { d["model"].(map[string]any)["vocab"].(map[string]any)["ab"] = 258 }),
		small(func(d map[string]any) { d["model"].(map[string]any)["ignore_merges"] = true }),
		small(func(d map[string]any) { d["added_tokens"].([]any)[0].(map[string]any)["lstrip"] = true }),
		small(func(d map[string]any) { d["pre_tokenizer"].(map[string]any)["use_regex"] = false }),
	} {
		tok, err := parse(file, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		if before, ok := seen[tok.Fingerprint()]; ok {
			t.Errorf("%d and %d have the same fingerprint", before, i)
		}
		seen[tok.Fingerprint()] = i
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, small(nil), "", "\t"); err != nil {
		t.Fatal(err)
	}
	if tok, err := parse(indented.Bytes(), nil); err != nil || seen[tok.Fingerprint()] != 0 {
		t.Errorf("white space in the file changes the fingerprint: %v", err)
	}
}

func TestEncodeFromSeveralGoroutines(t *testing.T) {
	var g golden
	readGolden(t, "testdata/hf/qwen.json", &g)
	tok, err := parse(g.Tokenizer, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				for _, c := range g.Cases {
					if !slices.Equal(tok.Encode([]byte(c.text), nil), c.ids) {
						t.Errorf("%q: other ids", c.text)
					}
				}
			}
		})
	}
	wg.Wait()
}

// FuzzTokenizerJSON reads broken files: an error, or a tokenizer that works.
func FuzzTokenizerJSON(f *testing.F) {
	f.Add(small(nil), []byte("ab </s>"))
	files, err := filepath.Glob("testdata/hf/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			var g golden
			if json.Unmarshal(data, &g) == nil && len(g.Tokenizer) > 0 {
				f.Add([]byte(g.Tokenizer), []byte("  a\u0301 [MASK]<w> é\xff"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, file, text []byte) {
		tok, err := parse(file, nil)
		if err != nil {
			return
		}
		ids := tok.Encode(text, nil)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Fatalf("id %d of %d", id, tok.VocabSize())
			}
		}
		tok.Decode(ids)
		if _, err := AddMask(tok); err != nil {
			t.Error(err)
		}
	})
}

func TestAddEOS(t *testing.T) {
	without := small(func(d map[string]any) {
		d["added_tokens"] = []any{map[string]any{"id": 300, "content": "[MASK]", "special": true}}
	})
	tok, err := parse(without, []byte(`{"eos_token": null, "added_tokens_decoder": {}}`))
	if err != nil || tok.EOS() != -1 {
		t.Fatal(tok, err)
	}
	for content, want := range map[string]int32{"<|end|>": 301, "ab": 256, "[MASK]": 300} {
		ends, err := AddEOS(tok, content)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := ends.Save(dir); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(dir)
		if err != nil || loaded.EOS() != want || ends.EOS() != want || loaded.Mask() != 300 {
			t.Errorf("%s: %v, %v", content, loaded, err)
		} else if got := loaded.Encode([]byte("b"+content+"b"), nil); !slices.Equal(got, []int32{'b', want, 'b'}) {
			t.Errorf("%s: ids %v", content, got)
		}
		if again, err := AddEOS(ends, "</s>"); again != ends || err != nil {
			t.Error("a second EOS", err)
		}
	}
	if _, err := AddEOS(tok, ""); err == nil {
		t.Error("an empty token ends a text")
	}
}

// The separators of older folders are in special_tokens_map.json; what
// tokenizer_config.json says, null too, goes before.
func TestSpecialTokensMap(t *testing.T) {
	for _, c := range []struct {
		config, names string
		want          [3]int32
	}{
		{"", `{"eos_token": {"content": "ab"}, "bos_token": "[MASK]"}`, [3]int32{300, 256, 300}},
		{`{"eos_token": "</s>", "bos_token": null}`, `{"eos_token": "ab", "bos_token": "ab"}`, [3]int32{-1, 257, 300}},
		{`{"chat_template": "x"}`, `{"mask_token": "ab", "unk_token": "zz"}`, [3]int32{-1, 257, 256}},
	} {
		dir, again := t.TempDir(), t.TempDir()
		for name, content := range map[string]string{File: string(small(nil)), ConfigFile: c.config, mapFile: c.names} {
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int32{tok.BOS(), tok.EOS(), tok.Mask()}; got != c.want {
			t.Errorf("%s %s: %v, want %v", c.config, c.names, got, c.want)
		}
		if err := tok.Save(again); err != nil {
			t.Fatal(err)
		}
		if saved, err := Load(again); err != nil || saved.Fingerprint() != tok.Fingerprint() {
			t.Errorf("%s %s: saved and loaded: %v, %v", c.config, c.names, saved, err)
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{File: string(small(nil)), mapFile: "{"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), mapFile) {
		t.Error(err)
	}
}
