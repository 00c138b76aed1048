package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// definition is a Hugging Face tokenizer.json. Its components are parsed by
// kind (normalizer.go, pretokenizer.go, decoder.go). Truncation, padding and
// the post-processor are kept only to be written again: like Hugging Face's
// model classes, Encode neither cuts nor pads a text, and it adds no BOS.
type definition struct {
	Version       string          `json:"version"`
	Truncation    any             `json:"truncation"`
	Padding       any             `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         modelDefinition `json:"model"`
}

type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no letter, mark, digit or underscore touches it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space after it
	Normalized bool   `json:"normalized"`  // found in the normalised text, not in the text itself
	Special    bool   `json:"special"`
}

type modelDefinition struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int32 `json:"vocab"`
	Merges                  []mergePair      `json:"merges"`
}

// mergePair is two tokens that become one. tokenizer.json has it as "a b" or,
// where tokens may hold blanks, as ["a", "b"].
type mergePair [2]string

func (p *mergePair) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var list []string
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
		if len(list) != 2 {
			return fmt.Errorf("model.merges: an entry has %d tokens; it needs 2", len(list))
		}
		p[0], p[1] = list[0], list[1]
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	left, right, ok := strings.Cut(s, " ")
	if !ok || strings.Contains(right, " ") {
		return fmt.Errorf("model.merges: entry %q is not two tokens with a blank between them", s)
	}
	p[0], p[1] = left, right
	return nil
}

// MarshalJSON writes the older of the two forms, which every reader knows. It
// is only used for byte-level vocabularies, whose tokens hold no blanks.
func (p mergePair) MarshalJSON() ([]byte, error) {
	return json.Marshal(p[0] + " " + p[1])
}

// byteLevelDefinition is Hugging Face's ByteLevel component, which maps every
// byte to a printable character.
type byteLevelDefinition struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"`
	UseRegex       bool   `json:"use_regex"`
}

// plainByteLevel splits nothing and adds nothing.
var plainByteLevel = byteLevelDefinition{Type: "ByteLevel", TrimOffsets: true}

// byteCharacters returns the character that stands for each byte in the
// vocabulary of a byte-level BPE (GPT-2's table): printable bytes of Latin-1
// stand for themselves, the others, in order, for U+0100 and what follows.
func byteCharacters() [256]string {
	var table [256]string
	next := rune(0x100)
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE && b <= 0xFF {
			table[b] = string(b)
			continue
		}
		table[b] = string(next)
		next++
	}
	return table
}

// byteDefinition describes the byte-level vocabulary as a tokenizer.json. It
// has no post-processor: like Encode, it adds no BOS.
func byteDefinition() definition {
	component, err := json.Marshal(plainByteLevel)
	if err != nil {
		panic(err) // a struct of strings and booleans
	}
	d := definition{
		Version:      "1.0",
		PreTokenizer: component,
		Decoder:      component,
		Model:        modelDefinition{Type: "BPE", Vocab: make(map[string]int32, 256), Merges: []mergePair{}},
	}
	for b, s := range byteCharacters() {
		d.Model.Vocab[s] = int32(b)
	}
	for i, s := range []string{BOSToken, EOSToken, MaskToken} {
		d.AddedTokens = append(d.AddedTokens, addedToken{ID: byteBOS + int32(i), Content: s, Special: true})
	}
	return d
}

// specialConfig is the tokenizer_config.json of a vocabulary of this project.
func specialConfig() any {
	return struct {
		TokenizerClass  string `json:"tokenizer_class"`
		BOSToken        string `json:"bos_token"`
		EOSToken        string `json:"eos_token"`
		MaskToken       string `json:"mask_token"`
		CleanUpSpaces   bool   `json:"clean_up_tokenization_spaces"`
		AddBOSToken     bool   `json:"add_bos_token"`
		AddEOSToken     bool   `json:"add_eos_token"`
		SplitSpecial    bool   `json:"split_special_tokens"`
		MaxModelLength  int64  `json:"model_max_length"`
		AddPrefixSpaces bool   `json:"add_prefix_space"`
	}{
		TokenizerClass: "PreTrainedTokenizerFast",
		BOSToken:       BOSToken,
		EOSToken:       EOSToken,
		MaskToken:      MaskToken,
		MaxModelLength: 1 << 40, // the model's own limit is in its config.json
	}
}

// isByteLevel reports whether d describes exactly the vocabulary ByteLevel.
func (d *definition) isByteLevel() bool {
	want := byteDefinition()
	m := &d.Model
	if len(m.Vocab) != len(want.Model.Vocab) || len(m.Merges) != 0 || m.ByteFallback || len(d.AddedTokens) != len(want.AddedTokens) ||
		!isNull(d.Normalizer) || !isNull(d.PostProcessor) || m.supported() != nil {
		return false
	}
	for i, a := range want.AddedTokens {
		if d.AddedTokens[i] != a {
			return false
		}
	}
	var pre, decoder byteLevelDefinition
	if json.Unmarshal(d.PreTokenizer, &pre) != nil || pre != plainByteLevel ||
		json.Unmarshal(d.Decoder, &decoder) != nil || decoder.Type != plainByteLevel.Type {
		return false
	}
	for s, id := range want.Model.Vocab {
		if got, ok := m.Vocab[s]; !ok || got != id {
			return false
		}
	}
	return true
}

// supported returns an error that names the field of the model that this
// package does not implement.
func (m *modelDefinition) supported() error {
	switch {
	case m.Type != "BPE" && !(m.Type == "" && len(m.Merges) > 0): // files of before 2020 leave the type out
		return fmt.Errorf("model.type is %q and only BPE is supported", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("model.dropout is %v and only null is supported, because ids would be random", *m.Dropout)
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return fmt.Errorf("model.continuing_subword_prefix is %q and only null is supported", *m.ContinuingSubwordPrefix)
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return fmt.Errorf("model.end_of_word_suffix is %q and only null is supported", *m.EndOfWordSuffix)
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// component decodes one normalizer, pre-tokenizer or decoder into v, which has
// a field for every key that is understood; field is its path, for errors.
func component(raw json.RawMessage, field string, v any) error {
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// componentType returns the field "type" of a component.
func componentType(raw json.RawMessage, field string) (string, error) {
	var c struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return c.Type, nil
}

// pattern is what Replace and Split look for.
type pattern struct {
	String *string
	Regex  *string
}

// literal returns the string of a pattern that is no regular expression.
func (p pattern) literal(field string) (string, error) {
	switch {
	case p.Regex != nil:
		return "", fmt.Errorf("%s.pattern.Regex: the regular expression %q is not supported", field, *p.Regex)
	case p.String == nil || *p.String == "":
		return "", errors.New(field + ".pattern.String: the pattern is empty")
	}
	return *p.String, nil
}

// maxNesting is how deep components may stand in one another.
const maxNesting = 16

func nested(depth int, field string) error {
	if depth > maxNesting {
		return fmt.Errorf("%s: components are nested more than %d deep", field, maxNesting)
	}
	return nil
}
