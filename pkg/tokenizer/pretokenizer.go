package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// A splitter cuts a text into pieces and hands them on in order. first says
// that the text begins where the whole text begins. A splitter that rewrites
// the text does so in buf, which is its own until split returns.
type splitter interface {
	split(text []byte, first bool, buf *[]byte, emit func(piece []byte, first bool))
}

// preTokenizer is a tokenizer.json's pre_tokenizer as a chain.
type preTokenizer struct {
	splitters []splitter
	byteLevel bool // the model's characters stand for bytes
}

func parsePreTokenizer(raw json.RawMessage) (*preTokenizer, error) {
	p := &preTokenizer{}
	if isNull(raw) {
		return p, nil
	}
	return p, p.parse(raw, "pre_tokenizer", 0)
}

func (p *preTokenizer) parse(raw json.RawMessage, field string, depth int) error {
	kind, err := componentType(raw, field)
	if err == nil {
		err = nested(depth, field)
	}
	if err != nil {
		return err
	}
	if p.byteLevel {
		return fmt.Errorf("%s.type: %q after ByteLevel is not supported", field, kind)
	}
	switch kind {
	case "Sequence":
		var c struct {
			Type          string            `json:"type"`
			PreTokenizers []json.RawMessage `json:"pretokenizers"`
		}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		for i, sub := range c.PreTokenizers {
			if err := p.parse(sub, fmt.Sprintf("%s.pretokenizers[%d]", field, i), depth+1); err != nil {
				return err
			}
		}
		return nil
	case "ByteLevel":
		c := byteLevelDefinition{UseRegex: true} // files of before 2022 leave it out
		if err := component(raw, field, &c); err != nil {
			return err
		}
		if c.AddPrefixSpace {
			p.splitters = append(p.splitters, prefixSpace{})
		}
		if c.UseRegex {
			p.splitters = append(p.splitters, scanSplit{planeClasses(), scanGPT2})
		}
		p.byteLevel = true
		return nil
	case "Split":
		s, err := parseSplit(raw, field)
		if err != nil {
			return err
		}
		p.splitters = append(p.splitters, s)
		return nil
	case "Digits":
		var c struct {
			Type       string `json:"type"`
			Individual bool   `json:"individual_digits"`
		}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		behavior := contiguous
		if c.Individual {
			behavior = isolated
		}
		p.splitters = append(p.splitters, matchSplit{digitMatcher(planeClasses()), behavior, false})
		return nil
	case "Metaspace":
		c := metaspaceDefinition{PrependScheme: prependAlways}
		if err := component(raw, field, &c); err != nil {
			return err
		}
		m, err := c.metaspace(field)
		if err != nil {
			return err
		}
		p.splitters = append(p.splitters, m)
		return nil
	}
	return fmt.Errorf("%s.type: the pre-tokenizer %q is not supported", field, kind)
}

func parseSplit(raw json.RawMessage, field string) (splitter, error) {
	var c struct {
		Type     string  `json:"type"`
		Pattern  pattern `json:"pattern"`
		Behavior string  `json:"behavior"`
		Invert   bool    `json:"invert"`
	}
	if err := component(raw, field, &c); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{removed, isolated, mergedWithPrevious, mergedWithNext, contiguous}, c.Behavior) {
		return nil, fmt.Errorf("%s.behavior: %q is not supported", field, c.Behavior)
	}
	if c.Pattern.Regex != nil {
		scan, ok := scanners[*c.Pattern.Regex]
		if !ok {
			return nil, fmt.Errorf("%s.pattern.Regex: the regular expression %q is not supported; those of GPT-2, Llama-3 and Qwen are", field, *c.Pattern.Regex)
		}
		// These expressions match all of every text, so isolating the matches and removing what does not match are the same.
		if c.Behavior != isolated && !(c.Behavior == removed && c.Invert) {
			return nil, fmt.Errorf("%s.behavior: %q with a regular expression is not supported", field, c.Behavior)
		}
		return scanSplit{planeClasses(), scan}, nil
	}
	s, err := c.Pattern.literal(field)
	if err != nil {
		return nil, err
	}
	return matchSplit{literalMatcher([]byte(s)), c.Behavior, c.Invert}, nil
}

// prefixSpace puts a blank before a text that does not begin with one.
type prefixSpace struct{}

func (prefixSpace) split(text []byte, first bool, buf *[]byte, emit func([]byte, bool)) {
	if text[0] != ' ' {
		text = prepend(" ").normalize(text, *buf)
		*buf = text
	}
	emit(text, first)
}

// scanSplit cuts a text into the matches of an expression that covers it.
type scanSplit struct {
	classes *classes
	scan    scanner
}

func (s scanSplit) split(text []byte, first bool, _ *[]byte, emit func([]byte, bool)) {
	for len(text) > 0 {
		n := s.scan(s.classes, text)
		emit(text[:n:n], first)
		text, first = text[n:], false
	}
}

// What becomes of the matches of a Split.
const (
	removed            = "Removed"
	isolated           = "Isolated"
	mergedWithPrevious = "MergedWithPrevious"
	mergedWithNext     = "MergedWithNext"
	contiguous         = "Contiguous"
)

// matcher returns the next match in text, or a start of -1.
type matcher func(text []byte) (start, end int)

func literalMatcher(s []byte) matcher {
	return func(text []byte) (int, int) {
		i := bytes.Index(text, s)
		return i, i + len(s)
	}
}

func digitMatcher(c *classes) matcher {
	return func(text []byte) (int, int) {
		for i := 0; i < len(text); {
			k, n := c.next(text[i:])
			if k == number {
				return i, i + n
			}
			i += n
		}
		return -1, -1
	}
}

// matchSplit cuts a text at matches.
type matchSplit struct {
	match    matcher
	behavior string
	invert   bool // matches and what is between them change parts
}

func (s matchSplit) split(text []byte, first bool, _ *[]byte, emit func([]byte, bool)) {
	// held is the piece that the next one may still be joined to.
	start, end, held, heldMatch := 0, 0, false, false
	release := func() {
		if held {
			emit(text[start:end:end], first && start == 0)
		}
		held = false
	}
	add := func(from, to int, match bool) {
		if from == to {
			return
		}
		match = match != s.invert
		join := false
		switch s.behavior {
		case removed:
			if match {
				return
			}
		case mergedWithPrevious: // of several matches in a row only the first
			join = match && !heldMatch
		case mergedWithNext: // only the last
			join = !match && heldMatch
		case contiguous:
			join = match == heldMatch
		}
		if !held || !join {
			release()
			start, held = from, true
		}
		end, heldMatch = to, match
	}
	for at := 0; at < len(text); {
		from, to := s.match(text[at:])
		if from < 0 {
			add(at, len(text), false)
			break
		}
		add(at, at+from, false)
		add(at+from, at+to, true)
		at += to
	}
	release()
}

// The values of Metaspace's prepend_scheme.
const (
	prependAlways = "always"
	prependFirst  = "first"
	prependNever  = "never"
)

type metaspaceDefinition struct {
	Type           string `json:"type"`
	Replacement    string `json:"replacement"`
	StrRep         string `json:"str_rep"` // repeats replacement in old files
	AddPrefixSpace *bool  `json:"add_prefix_space"`
	PrependScheme  string `json:"prepend_scheme"`
	Split          *bool  `json:"split"`
}

func (c metaspaceDefinition) metaspace(field string) (metaspace, error) {
	m := metaspace{replacement: c.Replacement, scheme: c.PrependScheme, splits: c.Split == nil || *c.Split}
	if utf8.RuneCountInString(c.Replacement) != 1 {
		return m, errors.New(field + ".replacement: it must be one character")
	}
	if !slices.Contains([]string{prependAlways, prependFirst, prependNever}, m.scheme) {
		return m, fmt.Errorf("%s.prepend_scheme: %q is not supported", field, m.scheme)
	}
	if c.AddPrefixSpace != nil && !*c.AddPrefixSpace {
		if m.scheme == prependFirst {
			return m, fmt.Errorf("%s.add_prefix_space: false contradicts prepend_scheme %q", field, m.scheme)
		}
		m.scheme = prependNever
	}
	return m, nil
}

// metaspace writes a visible character for blanks, as SentencePiece does, and
// begins a piece at each.
type metaspace struct {
	replacement string
	scheme      string
	splits      bool
}

func (m metaspace) split(text []byte, first bool, buf *[]byte, emit func([]byte, bool)) {
	mark := []byte(m.replacement)
	out := (*buf)[:0]
	add := text[0] != ' ' && !bytes.HasPrefix(text, mark) && (m.scheme == prependAlways || m.scheme == prependFirst && first)
	out = slices.Grow(out, len(mark)+len(text)+bytes.Count(text, []byte{' '})*(len(mark)-1))
	if add {
		out = append(out, mark...)
	}
	for {
		i := bytes.IndexByte(text, ' ')
		if i < 0 {
			break
		}
		out = append(append(out, text[:i]...), mark...)
		text = text[i+1:]
	}
	out = append(out, text...)
	*buf = out
	if !m.splits {
		emit(out, first)
		return
	}
	matchSplit{literalMatcher(mark), mergedWithNext, false}.split(out, first, nil, emit)
}
