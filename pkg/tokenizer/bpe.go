package tokenizer

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// BPE is the tokenizer that a Hugging Face tokenizer.json with a BPE model
// describes: Llama-2's kind (characters with byte fallback) and the byte-level
// kind (GPT-2, Llama-3, Qwen). It gives the ids that the Python package
// tokenizers gives with add_special_tokens=False.
//
// Texts may be any bytes. A byte that is no UTF-8 is a character of its own; it
// survives Decode(Encode(text)) where the vocabulary has bytes.
type BPE struct {
	file, config []byte // as they are saved; config may be nil

	added           *addedTokens // in the text as it is
	normalizers     []normalizer
	addedNormalized *addedTokens // in the normalised text
	pre             *preTokenizer
	model           *model
	decoder         *decoder
	pieces          []string // by id, the text of the token; "" for ids without
	isAdded         []bool   // by id
	known           []bool   // by id

	bos, eos, mask int32
	special        []int32
	fingerprint    string

	encoders sync.Pool // of *encoder
}

// parse returns the tokenizer that file, the content of a tokenizer.json, and
// config, that of a tokenizer_config.json or nil, describe.
func parse(file, config []byte) (Tokenizer, error) {
	var d definition
	if err := json.Unmarshal(file, &d); err != nil {
		return nil, err
	}
	if d.isByteLevel() {
		return ByteLevel{}, nil
	}
	return newBPE(&d, file, config)
}

func newBPE(d *definition, file, config []byte) (*BPE, error) {
	t := &BPE{file: file, config: config}
	var err error
	if err = checkAdded(d); err != nil {
		return nil, err
	}
	if t.normalizers, err = parseNormalizer(d.Normalizer, "normalizer", 0, nil); err != nil {
		return nil, err
	}
	if t.pre, err = parsePreTokenizer(d.PreTokenizer); err != nil {
		return nil, err
	}
	if t.decoder, err = parseDecoder(d.Decoder); err != nil {
		return nil, err
	}
	if t.model, err = newModel(&d.Model, t.pre.byteLevel); err != nil {
		return nil, err
	}
	t.addTokens(d)
	if len(t.pieces) == 0 {
		return nil, errors.New("model.vocab is empty")
	}
	if err := t.findSpecial(d); err != nil {
		return nil, err
	}
	if t.fingerprint, err = t.hash(d); err != nil {
		return nil, err
	}
	t.encoders.New = func() any { return newEncoder(t) }
	return t, nil
}

// addTokens fills the tables by id and the added tokens.
func (t *BPE) addTokens(d *definition) {
	size := int32(0)
	for _, id := range d.Model.Vocab {
		size = max(size, id+1)
	}
	for _, a := range d.AddedTokens {
		size = max(size, a.ID+1)
	}
	t.pieces, t.isAdded, t.known = make([]string, size), make([]bool, size), make([]bool, size)
	for token, id := range d.Model.Vocab {
		t.pieces[id], t.known[id] = t.decoder.piece(token), true
	}
	normal := func(a addedToken) string {
		text := []byte(a.Content)
		for _, n := range t.normalizers {
			text = n.normalize(text, nil)
		}
		return string(text)
	}
	var raw, normalized []addedToken
	for _, a := range d.AddedTokens {
		t.pieces[a.ID], t.known[a.ID], t.isAdded[a.ID] = a.Content, true, true
		if a.Normalized {
			normalized = append(normalized, a)
			// What was found is the normalised string, which may hold the blank before it.
			if t.pieces[a.ID] = normal(a); !t.pre.byteLevel {
				t.pieces[a.ID] = t.decoder.piece(normal(a))
			}
		} else {
			raw = append(raw, a)
		}
		if a.Special {
			t.special = append(t.special, a.ID)
		}
	}
	slices.Sort(t.special)
	t.special = slices.Compact(t.special)
	t.added = newAddedTokens(raw, func(a addedToken) string { return a.Content })
	t.addedNormalized = newAddedTokens(normalized, normal)
}

// tokenConfig is a token in tokenizer_config.json: a string, or an object with
// its content.
type tokenConfig struct{ content string }

func (c *tokenConfig) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var object struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(data, &object)
		c.content = object.Content
		return err
	}
	return json.Unmarshal(data, &c.content)
}

// findSpecial finds BOS, EOS and [MASK]: as tokenizer_config.json says or,
// where it says nothing, by the names that are in use.
func (t *BPE) findSpecial(d *definition) error {
	config := map[string]json.RawMessage{}
	if t.config != nil {
		if err := json.Unmarshal(t.config, &config); err != nil {
			return fmt.Errorf("%s: %w", ConfigFile, err)
		}
	}
	id := func(content string) (int32, bool) {
		for _, a := range d.AddedTokens {
			if a.Content == content {
				return a.ID, true
			}
		}
		id, ok := d.Model.Vocab[content]
		return id, ok
	}
	for _, s := range []struct {
		dst   *int32
		key   string
		names []string
	}{
		{&t.bos, "bos_token", []string{BOSToken, "<|begin_of_text|>", "<|endoftext|>"}},
		{&t.eos, "eos_token", []string{EOSToken, "<|end_of_text|>", "<|endoftext|>"}},
		{&t.mask, "mask_token", []string{MaskToken}},
	} {
		*s.dst = -1
		names := s.names
		if raw, ok := config[s.key]; ok && (s.dst != &t.mask || !isNull(raw)) {
			var c tokenConfig
			if err := json.Unmarshal(raw, &c); err != nil {
				return fmt.Errorf("%s: %s: %w", ConfigFile, s.key, err)
			}
			if names = nil; c.content != "" {
				if _, ok := id(c.content); !ok {
					return fmt.Errorf("%s: %s is %q, which is in neither added_tokens nor model.vocab", ConfigFile, s.key, c.content)
				}
				names = []string{c.content}
			}
		}
		for _, name := range names {
			if found, ok := id(name); ok {
				*s.dst = found
				break
			}
		}
	}
	return nil
}

// hash returns the SHA-256 of all that decides ids.
func (t *BPE) hash(d *definition) (string, error) {
	h := sha256.New()
	m := d.Model
	m.Vocab, m.Merges = nil, nil
	head, err := json.Marshal(struct {
		Added      []addedToken
		Normalizer json.RawMessage
		Pre        json.RawMessage
		Model      modelDefinition
		Special    [3]int32
	}{d.AddedTokens, orNull(d.Normalizer), orNull(d.PreTokenizer), m, [3]int32{t.bos, t.eos, t.mask}})
	if err != nil {
		return "", fmt.Errorf("fingerprinting: %w", err)
	}
	// Writing to a hash cannot fail.
	number := func(n int) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	}
	piece := func(s string) {
		number(len(s))
		h.Write([]byte(s))
	}
	piece(string(head))
	tokens := slices.SortedFunc(maps.Keys(d.Model.Vocab), func(a, b string) int { return cmp.Compare(d.Model.Vocab[a], d.Model.Vocab[b]) })
	number(len(tokens))
	for _, token := range tokens {
		number(int(d.Model.Vocab[token]))
		piece(token)
	}
	for _, p := range d.Model.Merges {
		piece(p[0])
		piece(p[1])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func orNull(raw json.RawMessage) json.RawMessage {
	if isNull(raw) {
		return json.RawMessage("null")
	}
	return raw
}

// Encode appends the ids of text to dst. Added tokens are found first; a text
// that spells one, such as </s>, holds it.
func (t *BPE) Encode(text []byte, dst []int32) []int32 {
	e := t.encoders.Get().(*encoder)
	defer t.encoders.Put(e)
	e.dst = slices.Grow(dst, len(text)/4)
	t.added.split(text, func(piece []byte, at int, token *addedToken) {
		if token != nil {
			e.dst = append(e.dst, token.ID)
			return
		}
		for i, n := range t.normalizers {
			out := n.normalize(piece, e.normal[i])
			if len(out) > 0 && len(piece) > 0 && &out[0] != &piece[0] {
				e.normal[i] = out
			}
			piece = out
		}
		t.addedNormalized.split(piece, func(piece []byte, inner int, token *addedToken) {
			if token != nil {
				e.dst = append(e.dst, token.ID)
				return
			}
			e.stages[0](piece, at == 0 && inner == 0)
		})
	})
	dst = e.dst
	e.dst = nil
	return dst
}

// Decode returns the text of ids. Bytes that are no UTF-8, as half a character
// is, stay as they are.
func (t *BPE) Decode(ids []int32) []byte {
	var text []byte
	for i, id := range ids {
		if id < 0 || int(id) >= len(t.pieces) || !t.known[id] {
			text = append(text, "\uFFFD"...)
			continue
		}
		piece := t.pieces[id]
		if i == 0 && t.decoder.dropFirst && !t.isAdded[id] {
			piece = strings.ReplaceAll(piece, " ", "")
		}
		text = append(text, piece...)
	}
	return t.decoder.strip(text)
}

// VocabSize returns one more than the largest id.
func (t *BPE) VocabSize() int { return len(t.pieces) }

// BOS returns the id of the token that begins a text, or -1.
func (t *BPE) BOS() int32 { return t.bos }

// EOS returns the id of the token that ends a text, or -1.
func (t *BPE) EOS() int32 { return t.eos }

// Mask returns the id of [MASK], or -1 where the vocabulary has none; AddMask
// gives it one.
func (t *BPE) Mask() int32 { return t.mask }

// Special returns the ids of the added tokens that are special, in increasing
// order.
func (t *BPE) Special() []int32 { return slices.Clone(t.special) }

// Fingerprint hashes everything that decides ids.
func (t *BPE) Fingerprint() string { return t.fingerprint }

// Save writes tokenizer.json as it was read and, where there was one,
// tokenizer_config.json.
func (t *BPE) Save(dir string) error {
	if err := replaceFile(filepath.Join(dir, File), t.file); err != nil {
		return fmt.Errorf("saving the tokenizer: %w", err)
	}
	config := t.config
	if config == nil {
		return nil
	}
	if err := replaceFile(filepath.Join(dir, ConfigFile), config); err != nil {
		return fmt.Errorf("saving the tokenizer: %w", err)
	}
	return nil
}

// AddMask returns t with [MASK] as an added token, whose id is t's VocabSize
// (32000 for Llama-2, as in the paper). A tokenizer that has [MASK] is returned
// as it is.
func AddMask(t Tokenizer) (Tokenizer, error) {
	b, ok := t.(*BPE)
	if !ok || b.mask >= 0 {
		return t, nil
	}
	return b.withToken("mask_token", MaskToken)
}

// AddEOS returns t with the given token as the one that ends a text: an added
// token, new where t has none of that name. A tokenizer that has an EOS is
// returned as it is.
func AddEOS(t Tokenizer, token string) (Tokenizer, error) {
	b, ok := t.(*BPE)
	if !ok || b.eos >= 0 {
		return t, nil
	}
	if token == "" {
		return nil, errors.New("the token that ends a text cannot be empty")
	}
	return b.withToken("eos_token", token)
}

// withToken returns b with the token that tokenizer_config.json calls key.
func (b *BPE) withToken(key, content string) (Tokenizer, error) {
	var file map[string]json.RawMessage
	if err := json.Unmarshal(b.file, &file); err != nil {
		return nil, fmt.Errorf("adding %s: %w", content, err)
	}
	var added []json.RawMessage
	if raw := file["added_tokens"]; !isNull(raw) {
		if err := json.Unmarshal(raw, &added); err != nil {
			return nil, fmt.Errorf("adding %s: added_tokens: %w", content, err)
		}
	}
	config := map[string]json.RawMessage{}
	if b.config != nil {
		if err := json.Unmarshal(b.config, &config); err != nil {
			return nil, fmt.Errorf("adding %s: %s: %w", content, ConfigFile, err)
		}
	}
	put := func(m map[string]json.RawMessage, key string, v any) error {
		data, err := json.Marshal(v)
		m[key] = data
		return err
	}
	token := addedToken{ID: int32(b.VocabSize()), Content: content, Special: true}
	is := func(raw json.RawMessage) bool {
		var a addedToken
		return json.Unmarshal(raw, &a) == nil && a.Content == content
	}
	var err error
	if !slices.ContainsFunc(added, is) {
		if id := slices.Index(b.pieces, content); id >= 0 && b.known[id] {
			token.ID = int32(id) // of the model's vocabulary, and from now on found before all merges
		}
		var entry json.RawMessage
		if entry, err = json.Marshal(token); err == nil {
			err = put(file, "added_tokens", append(added, entry))
		}
		// tokenizer_config.json lists added tokens a second time, and transformers believes that list.
		if raw, ok := config["added_tokens_decoder"]; err == nil && ok {
			list := map[string]json.RawMessage{}
			if err = json.Unmarshal(raw, &list); err == nil {
				entry := map[string]any{"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true}
				if err = put(list, fmt.Sprint(token.ID), entry); err == nil {
					err = put(config, "added_tokens_decoder", list)
				}
			}
		}
	}
	err = errors.Join(err, put(config, key, content))
	var fileData, configData []byte
	if err == nil {
		fileData, err = json.MarshalIndent(file, "", "  ")
	}
	if err == nil {
		configData, err = json.MarshalIndent(config, "", "  ")
	}
	if err != nil {
		return nil, fmt.Errorf("adding %s: %w", content, err)
	}
	return parse(append(fileData, '\n'), append(configData, '\n'))
}

// mapFile is where older models name the tokens that tokenizer_config.json
// names in newer ones.
const mapFile = "special_tokens_map.json"

// readConfig returns the tokenizer_config.json beside file, with the BOS, EOS
// and [MASK] of special_tokens_map.json where it does not speak of them; nil
// where there is neither.
func readConfig(file string) ([]byte, error) {
	read := func(name string) ([]byte, error) {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
	data, err := read(ConfigFile)
	if err != nil {
		return nil, err
	}
	names, err := read(mapFile)
	if err != nil || names == nil {
		return data, err
	}
	var more map[string]json.RawMessage
	if err := json.Unmarshal(names, &more); err != nil {
		return nil, fmt.Errorf("%s: %w", mapFile, err)
	}
	config := map[string]json.RawMessage{}
	if data != nil && json.Unmarshal(data, &config) != nil {
		return data, nil // which parse says
	}
	changed := false
	for _, key := range []string{"bos_token", "eos_token", "mask_token"} {
		if _, ok := config[key]; !ok && !isNull(more[key]) {
			config[key], changed = more[key], true
		}
	}
	if !changed {
		return data, nil
	}
	return json.MarshalIndent(config, "", "  ")
}
