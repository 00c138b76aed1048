package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns the tokens of a sequence into text. All of its steps but the
// last act on single tokens, so that they are applied to the vocabulary once.
type decoder struct {
	token      []func(string) string // on every token
	dropFirst  bool                  // the first token loses its blanks (Metaspace)
	fused      bool                  // no step on single tokens may follow
	stripChar  string                // taken from the ends of the whole text
	stripStart int                   // at most so often
	stripStop  int
}

func parseDecoder(raw json.RawMessage) (*decoder, error) {
	d := &decoder{}
	if isNull(raw) {
		return nil, fmt.Errorf("decoder is null, so it is not known how tokens become text")
	}
	return d, d.parse(raw, "decoder", 0)
}

func (d *decoder) parse(raw json.RawMessage, field string, depth int) error {
	kind, err := componentType(raw, field)
	if err == nil {
		err = nested(depth, field)
	}
	if err != nil {
		return err
	}
	perToken := func(f func(string) string) error {
		if d.fused || d.dropFirst || d.stripChar != "" {
			return fmt.Errorf("%s.type: the decoder %q is supported only before Fuse, Strip and Metaspace", field, kind)
		}
		d.token = append(d.token, f)
		return nil
	}
	switch kind {
	case "Sequence":
		var c struct {
			Type     string            `json:"type"`
			Decoders []json.RawMessage `json:"decoders"`
		}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		for i, sub := range c.Decoders {
			if err := d.parse(sub, fmt.Sprintf("%s.decoders[%d]", field, i), depth+1); err != nil {
				return err
			}
		}
		return nil
	case "Replace":
		var c struct {
			Type    string  `json:"type"`
			Pattern pattern `json:"pattern"`
			Content string  `json:"content"`
		}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		old, err := c.Pattern.literal(field)
		if err != nil {
			return err
		}
		return perToken(func(s string) string { return strings.ReplaceAll(s, old, c.Content) })
	case "ByteFallback":
		return perToken(func(s string) string {
			if b, ok := byteToken(s); ok {
				return string([]byte{b})
			}
			return s
		})
	case "ByteLevel":
		table := characterBytes()
		return perToken(func(s string) string {
			if raw, ok := rawBytes(s, table); ok {
				return raw
			}
			return s
		})
	case "Metaspace":
		c := metaspaceDefinition{PrependScheme: prependAlways}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		m, err := c.metaspace(field)
		if err != nil {
			return err
		}
		if err := perToken(func(s string) string { return strings.ReplaceAll(s, m.replacement, " ") }); err != nil {
			return err
		}
		if m.scheme != prependNever {
			d.dropFirst = true
		}
		return nil
	case "Fuse":
		d.fused = true
		return nil
	case "Strip":
		var c struct {
			Type    string `json:"type"`
			Content string `json:"content"`
			Start   int    `json:"start"`
			Stop    int    `json:"stop"`
		}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		if !d.fused {
			return fmt.Errorf("%s.type: the decoder Strip is supported only after Fuse", field)
		}
		if utf8.RuneCountInString(c.Content) != 1 || c.Start < 0 || c.Stop < 0 || d.stripChar != "" {
			return fmt.Errorf("%s.content: Strip needs one character, counts from 0, and to stand alone", field)
		}
		d.stripChar, d.stripStart, d.stripStop = c.Content, c.Start, c.Stop
		return nil
	}
	return fmt.Errorf("%s.type: the decoder %q is not supported", field, kind)
}

// piece returns the text of one token.
func (d *decoder) piece(token string) string {
	for _, f := range d.token {
		token = f(token)
	}
	return token
}

// strip takes off the ends of a whole text what the decoder Strip takes.
func (d *decoder) strip(text []byte) []byte {
	c := []byte(d.stripChar)
	if len(c) == 0 {
		return text
	}
	for range d.stripStart {
		if !bytes.HasPrefix(text, c) {
			break
		}
		text = text[len(c):]
	}
	for range d.stripStop {
		if !bytes.HasSuffix(text, c) {
			break
		}
		text = text[:len(text)-len(c)]
	}
	return text
}

// byteToken returns the byte that a byte-fallback token such as <0x0A> stands
// for.
func byteToken(s string) (byte, bool) {
	if len(s) != 6 || !strings.HasPrefix(s, "<0x") || s[5] != '>' {
		return 0, false
	}
	v, err := strconv.ParseUint(s[3:5], 16, 8)
	return byte(v), err == nil
}

// characterBytes is the inverse of byteCharacters.
func characterBytes() map[rune]byte {
	table := make(map[rune]byte, 256)
	for b, s := range byteCharacters() {
		r, _ := utf8.DecodeRuneInString(s)
		table[r] = byte(b)
	}
	return table
}

// rawBytes returns the bytes that the characters of a byte-level token stand
// for; ok is false where a character stands for none.
func rawBytes(token string, table map[rune]byte) (raw string, ok bool) {
	b := make([]byte, 0, len(token))
	for _, r := range token {
		v, ok := table[r]
		if !ok {
			return "", false
		}
		b = append(b, v)
	}
	return string(b), true
}
