package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A normalizer rewrites a text before it is split. It returns text itself
// where there is nothing to do, else a text in buf's memory or a larger one.
type normalizer interface {
	normalize(text, buf []byte) []byte
}

// parseNormalizer appends the normalizers that raw describes to list.
func parseNormalizer(raw json.RawMessage, field string, depth int, list []normalizer) ([]normalizer, error) {
	if isNull(raw) {
		return list, nil
	}
	kind, err := componentType(raw, field)
	if err == nil {
		err = nested(depth, field)
	}
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		var c struct {
			Type        string            `json:"type"`
			Normalizers []json.RawMessage `json:"normalizers"`
		}
		if err := component(raw, field, &c); err != nil {
			return nil, err
		}
		for i, n := range c.Normalizers {
			if list, err = parseNormalizer(n, fmt.Sprintf("%s.normalizers[%d]", field, i), depth+1, list); err != nil {
				return nil, err
			}
		}
		return list, nil
	case "Prepend":
		var c struct {
			Type    string `json:"type"`
			Prepend string `json:"prepend"`
		}
		if err := component(raw, field, &c); err != nil {
			return nil, err
		}
		return append(list, prepend(c.Prepend)), nil
	case "Replace":
		var c struct {
			Type    string  `json:"type"`
			Pattern pattern `json:"pattern"`
			Content string  `json:"content"`
		}
		if err := component(raw, field, &c); err != nil {
			return nil, err
		}
		old, err := c.Pattern.literal(field)
		if err != nil {
			return nil, err
		}
		return append(list, replace{[]byte(old), []byte(c.Content)}), nil
	case "NFC":
		return append(list, unicodeForm(norm.NFC)), nil
	case "NFD":
		return append(list, unicodeForm(norm.NFD)), nil
	case "NFKC":
		return append(list, unicodeForm(norm.NFKC)), nil
	case "NFKD":
		return append(list, unicodeForm(norm.NFKD)), nil
	}
	return nil, fmt.Errorf("%s.type: the normalizer %q is not supported", field, kind)
}

// prepend puts itself before every text that is not empty.
type prepend string

func (p prepend) normalize(text, buf []byte) []byte {
	if len(text) == 0 || p == "" {
		return text
	}
	return append(append(slices.Grow(buf[:0], len(p)+len(text)), p...), text...)
}

// replace writes another string in place of every old one, from left to right.
type replace struct{ old, new []byte }

func (r replace) normalize(text, buf []byte) []byte {
	n := bytes.Count(text, r.old)
	if n == 0 {
		return text
	}
	buf = slices.Grow(buf[:0], len(text)+n*(len(r.new)-len(r.old)))
	for {
		i := bytes.Index(text, r.old)
		if i < 0 {
			return append(buf, text...)
		}
		buf = append(append(buf, text[:i]...), r.new...)
		text = text[i+len(r.old):]
	}
}

// unicodeForm is one of Unicode's normalisation forms (UAX #15).
type unicodeForm norm.Form

func (u unicodeForm) normalize(text, buf []byte) []byte {
	f := norm.Form(u)
	if f.IsNormal(text) && !manyMarks(text) {
		return text
	}
	if manyMarks(text) {
		return u.plain(text, buf)
	}
	return f.Append(slices.Grow(buf[:0], len(text)), text...)
}

// manyMarks reports whether text has so many combining characters in a row
// that package norm, which writes the Stream-Safe Text Format, might put U+034F
// among them. That begins at 30 of them, and one decomposes to 3 at most.
func manyMarks(text []byte) bool {
	run := 0
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			run = 0
			i++
			continue
		}
		p := norm.NFKD.Properties(text[i:])
		if p.CCC() == 0 && p.TrailCCC() == 0 {
			run = 0
		} else if run++; run >= 10 {
			return true
		}
		i += max(p.Size(), 1)
	}
	return false
}

// plain normalises without the Stream-Safe Text Format, as UAX #15 says it.
func (u unicodeForm) plain(text, buf []byte) []byte {
	type mark struct {
		r   rune
		ccc uint8
	}
	decompose, compose := norm.NFD, u == unicodeForm(norm.NFC) || u == unicodeForm(norm.NFKC)
	if u == unicodeForm(norm.NFKC) || u == unicodeForm(norm.NFKD) {
		decompose = norm.NFKD
	}
	var marks []mark // a starter, or none, and the combining characters after it
	buf = slices.Grow(buf[:0], len(text))
	flush := func() {
		if compose && len(marks) > 1 && marks[0].ccc == 0 {
			kept := marks[:1]
			for _, m := range marks[1:] {
				// A character is blocked by one of its own class, or by another starter, between it and the starter.
				last := kept[len(kept)-1].ccc
				if blocked := len(kept) > 1 && (last == 0 || last >= m.ccc); !blocked {
					if r, ok := composition(kept[0].r, m.r); ok {
						kept[0].r = r
						continue
					}
				}
				kept = append(kept, m)
			}
			marks = kept
		}
		for _, m := range marks {
			buf = utf8.AppendRune(buf, m.r)
		}
		marks = marks[:0]
	}
	// Composition also joins two starters (Hangul), so a segment ends only at a
	// starter that does not compose with what is before it.
	add := func(m mark) {
		if m.ccc == 0 && len(marks) > 0 {
			if r, ok := composition(marks[0].r, m.r); compose && ok && len(marks) == 1 && marks[0].ccc == 0 {
				marks[0].r = r
				return
			}
			flush()
		}
		at := len(marks)
		for at > 0 && marks[at-1].ccc > m.ccc {
			at--
		}
		marks = slices.Insert(marks, at, m)
	}
	for len(text) > 0 {
		p := decompose.Properties(text)
		size := p.Size()
		if _, n := utf8.DecodeRune(text); size == 0 || n == 1 && text[0] >= utf8.RuneSelf {
			flush()
			buf = append(buf, text[0])
			text = text[1:]
			continue
		}
		d := p.Decomposition()
		if d == nil {
			d = norm.NFD.Bytes(text[:size]) // Hangul syllables have no stored decomposition
		}
		for len(d) > 0 {
			r, n := utf8.DecodeRune(d)
			add(mark{r, norm.NFD.Properties(d).CCC()})
			d = d[n:]
		}
		text = text[size:]
	}
	flush()
	return buf
}

// composition returns the primary composite of two characters.
func composition(a, b rune) (rune, bool) {
	s := norm.NFC.String(string(a) + string(b))
	r, n := utf8.DecodeRuneInString(s)
	return r, n == len(s) && r != utf8.RuneError
}
