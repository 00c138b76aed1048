package tokenizer

import "math"

// The splitting expressions of the tokenizers in use. Go's regexp knows no
// look-ahead, so each has a scanner that returns what the expression would.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` // and cl100k
	patternQwen   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// scanner returns the length of the first piece of text, which is not empty.
// The pieces cover the text.
type scanner func(c *classes, text []byte) int

// scanners holds the expressions that are understood.
var scanners = map[string]scanner{
	patternGPT2:   scanGPT2,
	patternLlama3: func(c *classes, text []byte) int { return scanWords(c, text, 3) },
	patternQwen:   func(c *classes, text []byte) int { return scanWords(c, text, 1) },
}

func scanGPT2(c *classes, text []byte) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	// ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+`
	k, size := c.next(text)
	if text[0] == ' ' && len(text) > 1 {
		if after, n := c.next(text[1:]); after < space {
			k, size = after, 1+n
		}
	}
	if k < space {
		return size + c.run(text[size:], k, math.MaxInt)
	}
	n, _ := c.spaces(text)
	return c.beforeWord(text, n)
}

// scanWords is the expression of cl100k, Llama-3 (numbers in groups of up to 3
// digits) and Qwen (of 1).
func scanWords(c *classes, text []byte, digits int) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	k, size := c.next(text)
	// `[^\r\n\p{L}\p{N}]?\p{L}+`
	if k == letter {
		return size + c.run(text[size:], letter, math.MaxInt)
	}
	if k == other || k == space {
		if n := c.run(text[size:], letter, math.MaxInt); n > 0 {
			return size + n
		}
	}
	// `\p{N}{1,3}`
	if k == number {
		return size + c.run(text[size:], number, digits-1)
	}
	// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
	start := 0
	if text[0] == ' ' {
		start = 1
	}
	if n := c.run(text[start:], other, math.MaxInt); n > 0 {
		n += start
		return n + c.run(text[n:], newline, math.MaxInt)
	}
	// `\s*[\r\n]+|\s+(?!\S)|\s+`
	n, lines := c.spaces(text)
	if lines > 0 {
		return lines
	}
	return c.beforeWord(text, n)
}

// spaces returns the length of the white space that text begins with, and the
// length up to and with its last newline.
func (c *classes) spaces(text []byte) (n, lines int) {
	for n < len(text) {
		k, size := c.next(text[n:])
		if k != space && k != newline {
			break
		}
		n += size
		if k == newline {
			lines = n
		}
	}
	return n, lines
}

// beforeWord is `\s+(?!\S)|\s+` on n bytes of white space: where a word
// follows, the last character is left to it unless it is the only one.
func (c *classes) beforeWord(text []byte, n int) int {
	if n == len(text) {
		return n
	}
	last := n - 1
	for last > 0 && text[last]&0xC0 == 0x80 {
		last--
	}
	if last > 0 {
		return last
	}
	return n
}

// contraction is `'s|'t|'re|'ve|'m|'ll|'d`.
func contraction(text []byte, fold bool) int {
	if text[0] != '\'' || len(text) < 2 {
		return 0
	}
	lower := func(b byte) byte {
		if fold && b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		return b
	}
	switch a := lower(text[1]); a {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v', 'l':
		if len(text) < 3 {
			return 0
		}
		if b := lower(text[2]); a == 'l' && b == 'l' || a != 'l' && b == 'e' {
			return 3
		}
	case 0xC5:
		if fold && len(text) > 2 && text[2] == 0xBF { // U+017F, the long s, folds to s
			return 3
		}
	}
	return 0
}
