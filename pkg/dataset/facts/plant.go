package facts

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf8"
)

// Planter cuts texts into documents and plants facts into them.
type Planter struct {
	Config
	// HeldOut plants names that are never planted without it.
	HeldOut bool
}

// Document is a piece of a text with what was planted into it.
type Document struct {
	Text  []byte // [DocumentBytes], UTF-8 where the text is
	Facts []Fact
}

// Documents cuts a text into documents, one after the other, and plants facts and questions between their lines. What remains at the
// end, too short for a document, is left out. Which facts a document gets depends on the whole text and the document's place in it.
func (p Planter) Documents(text []byte) iter.Seq[Document] {
	return func(yield func(Document) bool) {
		seed := textSeed(text)
		for i := uint64(0); ; i++ {
			d := newDraws(seed, i)
			n := 1 + d.below(p.PerDocument)
			piece, rest := cut(text, p.DocumentBytes-p.plantedBytes(n))
			if piece == nil || !yield(p.plant(piece, n, d)) {
				return
			}
			text = rest
		}
	}
}

// cut takes a piece of size bytes off a text: at most size - 1 of its bytes, whole characters, filled up by line breaks. It returns
// nil where the text has less.
func cut(text []byte, size int) (piece, rest []byte) {
	n := size - 1
	if n > len(text) {
		return nil, nil
	}
	for n > 0 && n < len(text) && !utf8.RuneStart(text[n]) {
		n--
	}
	if n == 0 { // no UTF-8: nothing to be kept whole
		n = size - 1
	}
	piece = append(make([]byte, 0, size), text[:n]...)
	return append(piece, bytes.Repeat([]byte("\n"), size-n)...), text[n:]
}

// planted is a line and where it goes: after that share of the lines of text, in units of 1/places.
type planted struct {
	at   int
	line string
}

const places = 1 << 20

// plant makes a document with n facts of a piece of text.
func (p Planter) plant(piece []byte, n int, d *draws) Document {
	facts := d.drawFacts(n, p.HeldOut)
	lines := make([]planted, 0, n+p.Questions)
	for _, f := range facts {
		at := min(d.below(places), d.below(places)) // rather early, so that many questions come long after
		lines = append(lines, planted{at, fill(p.Fact, f)})
	}
	for i := range p.Questions {
		f := i % n
		after := lines[f].at
		lines = append(lines, planted{after + d.below(places-after), fill(p.Question, facts[f])})
	}
	return Document{Text: insert(piece, lines), Facts: facts}
}

// insert puts lines between those of a text that ends one; among lines at the same place the order is kept.
func insert(text []byte, lines []planted) []byte {
	slices.SortStableFunc(lines, func(a, b planted) int { return cmp.Compare(a.at, b.at) })
	slots := bytes.Count(text, []byte("\n")) + 1 // before each line, and at the end
	var out []byte
	done := 0
	for _, l := range lines {
		for ; done < l.at*slots/places; done++ {
			end := bytes.IndexByte(text, '\n') + 1
			out = append(out, text[:end]...)
			text = text[end:]
		}
		out = append(append(out, l.line...), '\n')
	}
	return append(out, text...)
}

// fill writes a fact in a form.
func fill(form string, f Fact) string {
	return strings.Replace(strings.Replace(form, namePlace, f.Name, 1), codePlace, f.Code, 1)
}

// Case is a fact, as it is hidden in a text, and the question that asks for it.
type Case struct {
	Lines    []string // the fact's, then those of others that may be mixed up with it
	Question string   // up to the answer
	Answer   string
}

// Cases returns n facts that no training document holds, each with so many others beside it.
func (p Planter) Cases(n, others int, seed uint64) []Case {
	cases := make([]Case, n)
	for i := range cases {
		facts := newDraws(mix(seed), uint64(i)).drawFacts(1+others, true)
		for _, f := range facts {
			cases[i].Lines = append(cases[i].Lines, fill(p.Fact, f)+"\n")
		}
		cases[i].Question = fill(strings.TrimSuffix(p.Question, codePlace), facts[0])
		cases[i].Answer = facts[0].Code
	}
	return cases
}

// draws are random numbers that a key and a counter determine.
type draws struct{ pcg *rand.PCG }

func newDraws(key, counter uint64) *draws { return &draws{rand.NewPCG(key, mix(counter))} }

// below returns a number from 0 to n-1. Its bias, n / 2^64, is of no account here.
func (d *draws) below(n int) int {
	hi, _ := bits.Mul64(d.pcg.Uint64(), uint64(n))
	return int(hi)
}

// textSeed is a hash of a text.
func textSeed(text []byte) uint64 {
	sum := sha256.Sum256(text)
	return binary.LittleEndian.Uint64(sum[:])
}

// mix is SplitMix64's finaliser.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
