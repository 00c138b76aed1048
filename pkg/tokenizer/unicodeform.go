package tokenizer

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// unicodeForm is one of Unicode's normalisation forms (UAX #15). Package norm
// has the tables, but composes past starters and puts U+034F into long rows of
// combining characters (the Stream-Safe Text Format), so the rules are applied
// here.
type unicodeForm norm.Form

// newMarks are the characters that Hugging Face's tables (Unicode 9) do not
// know, and that would combine or decompose.
var newMarks = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x7FD, 0x7FD, 1}, {0x898, 0x89F, 1}, {0x8CA, 0x8D3, 1}, {0x9FE, 0x9FE, 1}, {0xC3C, 0xC3C, 1}, {0xD3B, 0xD3C, 1}, {0xEBA, 0xEBA, 1},
		{0x1715, 0x1715, 1}, {0x1ABF, 0x1ACE, 1}, {0x1DF6, 0x1DFA, 1}, {0x32FF, 0x32FF, 1}, {0xA7F2, 0xA7F4, 1}, {0xA82C, 0xA82C, 1}, {0xAB69, 0xAB69, 1},
	},
	R32: []unicode.Range32{
		{0x10781, 0x10785, 1}, {0x10787, 0x107B0, 1}, {0x107B2, 0x107BA, 1}, {0x10D24, 0x10D27, 1}, {0x10EAB, 0x10EAC, 1}, {0x10EFD, 0x10EFF, 1},
		{0x10F46, 0x10F50, 1}, {0x10F82, 0x10F85, 1}, {0x11070, 0x11070, 1}, {0x1133B, 0x1133B, 1}, {0x1145E, 0x1145E, 1}, {0x11839, 0x1183A, 1},
		{0x11930, 0x11930, 1}, {0x11938, 0x11938, 1}, {0x1193D, 0x1193E, 1}, {0x11943, 0x11943, 1}, {0x119E0, 0x119E0, 1}, {0x11A34, 0x11A34, 1},
		{0x11A47, 0x11A47, 1}, {0x11A99, 0x11A99, 1}, {0x11D42, 0x11D42, 1}, {0x11D44, 0x11D45, 1}, {0x11D97, 0x11D97, 1}, {0x11F41, 0x11F42, 1},
		{0x16FF0, 0x16FF1, 1}, {0x1E030, 0x1E06D, 1}, {0x1E08F, 0x1E08F, 1}, {0x1E130, 0x1E136, 1}, {0x1E2AE, 0x1E2AE, 1}, {0x1E2EC, 0x1E2EF, 1},
		{0x1E4EC, 0x1E4EF, 1}, {0x1F16C, 0x1F16C, 1}, {0x1FBF0, 0x1FBF9, 1},
	},
}

func (u unicodeForm) compose() bool { return norm.Form(u) == norm.NFC || norm.Form(u) == norm.NFKC }

// decomposition is the form that decomposes as u does and composes nothing.
func (u unicodeForm) decomposition() norm.Form {
	if f := norm.Form(u); f == norm.NFKC || f == norm.NFKD {
		return norm.NFKD
	}
	return norm.NFD
}

func (u unicodeForm) normalize(text, buf []byte) []byte {
	done := 0 // what of text is in buf
	for at := 0; at < len(text); {
		end, alone := u.segment(text, at)
		segment := text[at:end]
		if len(segment) > 1 && !(alone && u.unchanged(segment)) {
			if done == 0 {
				buf = slices.Grow(buf[:0], len(text))
			}
			buf = u.rewrite(segment, append(buf, text[done:at]...))
			done = end
		}
		at = end
	}
	if done == 0 {
		return text
	}
	return append(buf, text[done:]...)
}

// segment returns the end of what stands at at and may combine: a character
// and all after it that can join those before them. alone says that it is one
// character.
func (u unicodeForm) segment(text []byte, at int) (end int, alone bool) {
	_, n := utf8.DecodeRune(text[at:])
	end, alone = at+n, true
	for end < len(text) && text[end] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(text[end:])
		if n == 1 || unicode.Is(newMarks, r) || u.decomposition().Properties(text[end:]).BoundaryBefore() {
			break
		}
		end += n
		alone = false
	}
	return end, alone
}

// unchanged reports whether one character stays as it is.
func (u unicodeForm) unchanged(character []byte) bool {
	r, _ := utf8.DecodeRune(character)
	return unicode.Is(newMarks, r) || norm.Form(u).IsNormal(character)
}

// combining is a character with its canonical combining class; 0 is a starter.
type combining struct {
	r     rune
	class uint8
}

// rewrite appends the normalised segment to buf.
func (u unicodeForm) rewrite(segment, buf []byte) []byte {
	var row []combining // a starter, or none, and the combining characters after it, by class
	flush := func() {
		if u.compose() {
			row = composeRow(row)
		}
		for _, c := range row {
			buf = utf8.AppendRune(buf, c.r)
		}
		row = row[:0]
	}
	add := func(c combining) {
		if c.class == 0 && len(row) > 0 {
			if u.compose() && len(row) == 1 && row[0].class == 0 {
				if r, ok := composition(row[0].r, c.r); ok { // two starters: Hangul, and vowels of Indic scripts
					row[0].r = r
					return
				}
			}
			flush()
		}
		at := len(row)
		for at > 0 && row[at-1].class > c.class {
			at--
		}
		row = slices.Insert(row, at, c)
	}
	for len(segment) > 0 {
		r, n := utf8.DecodeRune(segment)
		if unicode.Is(newMarks, r) {
			add(combining{r, 0})
		} else {
			for _, d := range string(u.decomposition().Bytes(segment[:n])) {
				add(combining{d, norm.NFD.PropertiesString(string(d)).CCC()})
			}
		}
		segment = segment[n:]
	}
	flush()
	return buf
}

// composeRow joins the combining characters of a row with its starter, unless
// one of the same class stands between them.
func composeRow(row []combining) []combining {
	if len(row) < 2 || row[0].class != 0 {
		return row
	}
	kept := row[:1]
	for _, c := range row[1:] {
		if blocked := len(kept) > 1 && kept[len(kept)-1].class >= c.class; !blocked {
			if r, ok := composition(kept[0].r, c.r); ok {
				kept[0].r = r
				continue
			}
		}
		kept = append(kept, c)
	}
	return kept
}

// composition returns the primary composite of two characters.
func composition(a, b rune) (rune, bool) {
	if unicode.Is(newMarks, b) {
		return 0, false
	}
	s := norm.NFC.String(string(a) + string(b))
	r, n := utf8.DecodeRuneInString(s)
	if n != len(s) || r == utf8.RuneError {
		return 0, false
	}
	// Package norm looks only at the lower 16 bits of a and b: it takes U+E0067 for g.
	return r, norm.NFD.String(s) == norm.NFD.String(string(a))+norm.NFD.String(string(b))
}
