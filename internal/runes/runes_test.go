package runes

import (
	"testing"
	"unicode/utf8"
)

// Text that is cut anywhere gives the longest text of whole characters before the cut; what is no UTF-8 stays.
func TestWhole(t *testing.T) {
	const text = "aé語𝄞z"
	for cut := range len(text) + 1 {
		want := 0
		for i, r := range text {
			if i+utf8.RuneLen(r) <= cut {
				want = i + utf8.RuneLen(r)
			}
		}
		if got := Whole([]byte(text[:cut])); string(got) != text[:want] {
			t.Errorf("%q cut at %d is %q, want %q", text, cut, got, text[:want])
		}
	}
	for _, binary := range []string{"a\xff", "\x80\x80\x80\x80", "\x80"} {
		if got := Whole([]byte(binary)); string(got) != binary {
			t.Errorf("%q became %q", binary, got)
		}
	}
}
