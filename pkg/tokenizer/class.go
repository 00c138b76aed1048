package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// class is what the splitting expressions tell apart.
type class uint8

const (
	other   class = iota // [^\s\p{L}\p{N}], and every byte that is no UTF-8
	letter               // \p{L}
	number               // \p{N}
	space                // \s but for newline
	newline              // \r or \n
)

// Hugging Face's expressions know Unicode 16; these are the letters and numbers
// that Go's tables (Unicode 15) lack. Newer tables of Go's would only repeat
// them.
var (
	newLetters = &unicode.RangeTable{
		R16: []unicode.Range16{{0x1C89, 0x1C8A, 1}, {0xA7CB, 0xA7CD, 1}, {0xA7DA, 0xA7DC, 1}},
		R32: []unicode.Range32{
			{0x105C0, 0x105F3, 1}, {0x10D4A, 0x10D65, 1}, {0x10D6F, 0x10D85, 1}, {0x10EC2, 0x10EC4, 1}, {0x11380, 0x11389, 1},
			{0x1138B, 0x1138B, 1}, {0x1138E, 0x1138E, 1}, {0x11390, 0x113B5, 1}, {0x113B7, 0x113B7, 1}, {0x113D1, 0x113D1, 1},
			{0x113D3, 0x113D3, 1}, {0x11BC0, 0x11BE0, 1}, {0x13460, 0x143FA, 1}, {0x16100, 0x1611D, 1}, {0x16D40, 0x16D6C, 1},
			{0x18CFF, 0x18CFF, 1}, {0x1E5D0, 0x1E5ED, 1}, {0x1E5F0, 0x1E5F0, 1}, {0x2EBF0, 0x2EE5D, 1},
		},
	}
	newNumbers = &unicode.RangeTable{
		R32: []unicode.Range32{
			{0x10D40, 0x10D49, 1}, {0x116D0, 0x116E3, 1}, {0x11BF0, 0x11BF9, 1}, {0x16130, 0x16139, 1}, {0x16D70, 0x16D79, 1},
			{0x1CCF0, 0x1CCF9, 1}, {0x1E5F1, 0x1E5FA, 1},
		},
	}
)

func slowClass(r rune) class {
	switch {
	case r == '\r' || r == '\n':
		return newline
	case unicode.IsLetter(r) || unicode.Is(newLetters, r):
		return letter
	case unicode.IsNumber(r) || unicode.Is(newNumbers, r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// classes holds the classes of the Basic Multilingual Plane.
type classes [1 << 16]class

var planeClasses = sync.OnceValue(func() *classes {
	c := new(classes)
	for r := range c {
		c[r] = slowClass(rune(r))
	}
	return c
})

// next returns the class and the size of the first character of text, which is
// not empty. A byte that is no UTF-8 is a character of its own.
func (c *classes) next(text []byte) (class, int) {
	if b := text[0]; b < utf8.RuneSelf {
		return c[b], 1
	}
	r, n := utf8.DecodeRune(text)
	switch {
	case n == 1:
		return other, 1
	case int(r) < len(c):
		return c[r], n
	}
	return slowClass(r), n
}

// run returns how many bytes at the beginning of text are characters of the
// class k, at most limit characters.
func (c *classes) run(text []byte, k class, limit int) int {
	n := 0
	for ; n < len(text) && limit > 0; limit-- {
		got, size := c.next(text[n:])
		if got != k {
			break
		}
		n += size
	}
	return n
}
