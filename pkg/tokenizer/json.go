package tokenizer

import (
	"fmt"
	"slices"
)

// definition is the part of a Hugging Face tokenizer.json that a byte-level
// vocabulary needs.
type definition struct {
	Version       string        `json:"version"`
	Truncation    any           `json:"truncation"`
	Padding       any           `json:"padding"`
	AddedTokens   []addedToken  `json:"added_tokens"`
	Normalizer    any           `json:"normalizer"`
	PreTokenizer  *byteLevel    `json:"pre_tokenizer"`
	PostProcessor any           `json:"post_processor"`
	Decoder       *byteLevel    `json:"decoder"`
	Model         bytePairModel `json:"model"`
}

type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// byteLevel is Hugging Face's ByteLevel component, which maps every byte to a
// printable character.
type byteLevel struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"`
	UseRegex       bool   `json:"use_regex"`
}

type bytePairModel struct {
	Type                    string           `json:"type"`
	Dropout                 any              `json:"dropout"`
	UnkToken                any              `json:"unk_token"`
	ContinuingSubwordPrefix any              `json:"continuing_subword_prefix"`
	EndOfWordSuffix         any              `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int32 `json:"vocab"`
	Merges                  []any            `json:"merges"`
}

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
	d := definition{
		Version:      "1.0",
		PreTokenizer: &byteLevel{Type: "ByteLevel", TrimOffsets: true},
		Decoder:      &byteLevel{Type: "ByteLevel", TrimOffsets: true},
		Model:        bytePairModel{Type: "BPE", Vocab: make(map[string]int32, 256), Merges: []any{}},
	}
	for b, s := range byteCharacters() {
		d.Model.Vocab[s] = int32(b)
	}
	for i, s := range []string{BOSToken, EOSToken, MaskToken} {
		d.AddedTokens = append(d.AddedTokens, addedToken{ID: byteBOS + int32(i), Content: s, Special: true})
	}
	return d
}

// byteConfig is the tokenizer_config.json that goes with byteDefinition.
func byteConfig() any {
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

// isByteLevel returns an error that says where d differs from the byte-level
// vocabulary.
func (d definition) isByteLevel() error {
	want := byteDefinition()
	m := d.Model
	switch {
	case m.Type != want.Model.Type || len(m.Vocab) != len(want.Model.Vocab) || len(m.Merges) != 0:
		return fmt.Errorf("it holds a %q model with %d entries and %d merges", m.Type, len(m.Vocab), len(m.Merges))
	case m.ContinuingSubwordPrefix != nil || m.EndOfWordSuffix != nil || m.ByteFallback:
		return fmt.Errorf("its model marks parts of words")
	case !slices.Equal(d.AddedTokens, want.AddedTokens):
		return fmt.Errorf("its added tokens are not %s, %s and %s with the ids %d to %d", BOSToken, EOSToken, MaskToken, byteBOS, byteMask)
	case d.Normalizer != nil || d.PostProcessor != nil:
		return fmt.Errorf("it has a normalizer or a post-processor")
	case d.PreTokenizer == nil || d.Decoder == nil || *d.PreTokenizer != *want.PreTokenizer || d.Decoder.Type != want.Decoder.Type:
		return fmt.Errorf("its pre-tokenizer or decoder is not a plain ByteLevel")
	}
	for s, id := range want.Model.Vocab {
		if got, ok := m.Vocab[s]; !ok || got != id {
			return fmt.Errorf("its entry %q is not byte %d", s, id)
		}
	}
	return nil
}
