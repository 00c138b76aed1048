package eval

import (
	"slices"
	"strings"
	"unicode"
)

// words are the runs of letters and digits in a text, in lower case.
func words(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) })
}

// keywords are what recall looks for, each once, as words.
func (c *NeedleCase) keywords() [][]string {
	var all [][]string
	add := func(k []string) {
		if !slices.ContainsFunc(all, func(have []string) bool { return slices.Equal(have, k) }) {
			all = append(all, k)
		}
	}
	for _, k := range c.Keywords {
		add(words(k))
	}
	if len(c.Keywords) == 0 {
		for _, w := range words(c.Answer) {
			add([]string{w})
		}
	}
	return all
}

// recall is the share of the different expected words (or phrases) that are
// found in an answer, whatever their case and the punctuation around them.
func (c *NeedleCase) recall(answer string) float64 {
	want, have := c.keywords(), words(answer)
	if len(want) == 0 {
		return c.exact(answer) // an answer of signs only
	}
	found := 0
	for _, k := range want {
		if holdsWords(have, k) {
			found++
		}
	}
	return float64(found) / float64(len(want))
}

// holdsWords reports whether the words k, at least one, stand one after the other in have.
func holdsWords(have, k []string) bool {
	for i := range have {
		if len(k) > 0 && len(have)-i >= len(k) && slices.Equal(have[i:i+len(k)], k) {
			return true
		}
	}
	return false
}

// exact is 1 if the expected answer is a substring of an answer, apart from
// case, the width of blanks, and the expected one's last full stop; else 0.
func (c *NeedleCase) exact(answer string) float64 {
	if holdsAnswer(answer, c.Answer) {
		return 1
	}
	return 0
}

// holdsAnswer reports whether want is a substring of text as exact compares them.
func holdsAnswer(text, want string) bool {
	return strings.Contains(strings.Join(strings.Fields(strings.ToLower(text)), " "), normalAnswer(want))
}

// normalAnswer is an expected answer as exact looks for it.
func normalAnswer(s string) string {
	return strings.TrimRight(strings.Join(strings.Fields(strings.ToLower(s)), " "), ".!。！ ")
}
