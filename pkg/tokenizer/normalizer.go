package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

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
