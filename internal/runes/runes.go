// Package runes keeps characters whole where text is cut.
package runes

import "unicode/utf8"

// Whole returns UTF-8 text without the bytes of a character that was cut at its end.
func Whole(text []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return text[:len(text)-n]
			}
			break
		}
	}
	return text
}
