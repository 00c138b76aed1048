package dialogue

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/masking"
	"meap/pkg/tokenizer"
)

// Ids of the byte-level vocabulary.
const (
	bos  = 256
	eos  = 257
	mask = 258
)

// chatTokens is the byte-level vocabulary with the special tokens of ChatML and Llama 3.
type chatTokens struct{ tokenizer.ByteLevel }

var chatNames = []string{"<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}

func (c chatTokens) Special() []int32 {
	ids := c.ByteLevel.Special()
	for i := range chatNames {
		ids = append(ids, int32(c.ByteLevel.VocabSize()+i))
	}
	return ids
}

func (c chatTokens) VocabSize() int { return c.ByteLevel.VocabSize() + len(chatNames) }

func (c chatTokens) Decode(ids []int32) []byte {
	var text []byte
	for _, id := range ids {
		if i := int(id) - c.ByteLevel.VocabSize(); i >= 0 {
			text = append(text, chatNames[i]...)
		} else {
			text = append(text, c.ByteLevel.Decode([]int32{id})...)
		}
	}
	return text
}

func chatID(name string) int32 { return int32(259 + slices.Index(chatNames, name)) }

func loadTemplate(t *testing.T, name string, tok tokenizer.Tokenizer) *Template {
	t.Helper()
	template, err := LoadTemplate(name, "", tok)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// options are those of byte-level text with the template plain.
func options(t *testing.T, c Config, seq int) Options {
	t.Helper()
	policy, err := masking.NewTargets(c.Ratio, c.MinTarget, mask, 7)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Config: c, Template: loadTemplate(t, "plain", tokenizer.ByteLevel{}), Policy: policy, Seq: seq}
}

func say(words ...string) []Message {
	var m []Message
	for i, w := range words {
		m = append(m, Message{Role: []string{User, Assistant}[i%2], Content: w})
	}
	return m
}

func examples(t *testing.T, o Options, dialogues ...[]Message) []Example {
	t.Helper()
	var all []Example
	for _, d := range dialogues {
		e, err := o.Template.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func source(t *testing.T, all []Example, o Options, rows int) *Source {
	t.Helper()
	s, err := NewSource(all, o, rows, 3)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func collate(t *testing.T, s *Source, step int64, first, rows int) *dataset.Batch {
	t.Helper()
	var b dataset.Batch
	if err := s.Collate(step, first, rows, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// load reads files, given by name and content, from a folder of their own.
func load(t *testing.T, o Options, fraction float64, files map[string]string) (*Set, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data := dataset.DefaultConfig()
	data.Sources, data.ValidationFraction = []string{dir}, fraction
	return Load(context.Background(), data, o)
}
