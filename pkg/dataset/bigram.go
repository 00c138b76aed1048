package dataset

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"meap/pkg/tokenizer"
)

// bigramSymbols are what a byte-bigram model predicts: a byte, or the end of
// the document. The same numbers serve as contexts, where the last one stands
// for the document's beginning.
const (
	bigramSymbols  = 257
	bigramBoundary = 256
)

// BigramModel is the model of bytes that a trained Transformer has to beat: it
// predicts each byte of a document, and its end, from the byte before.
//
// Probabilities are Witten-Bell's (Witten and Bell, "The zero-frequency
// problem", 1991; Chen and Goodman, "An empirical study of smoothing
// techniques", 1999): with c(a, b) counted in the training text, c(a) its sum
// over b, and d(a) the number of different b seen after a,
//
//	P(b | a) = (c(a, b) + d(a) P(b)) / (c(a) + d(a))
//
// where P(b) is the same formula one order lower, over the uniform
// distribution. It has no parameter to tune, and no b is impossible.
type BigramModel struct {
	pairs [bigramSymbols][bigramSymbols]int64 // [context, symbol]
}

// NewBigramModel counts the documents of a split.
func NewBigramModel(train *Stream, tok tokenizer.Tokenizer) (*BigramModel, error) {
	m := new(BigramModel)
	err := eachSymbol(train, tok, func(context, symbol int) { m.pairs[context][symbol]++ })
	if err != nil {
		return nil, fmt.Errorf("counting byte bigrams: %w", err)
	}
	return m, nil
}

// BitsPerByte returns the bits that the model spends on the documents of a
// split, their ends included, per byte of their text. A model of tokens is
// compared with it by BitsPerByte over all labels but BOS.
func (m *BigramModel) BitsPerByte(s *Stream, tok tokenizer.Tokenizer) (float64, error) {
	cost := m.costs()
	seen := new(BigramModel)
	if err := eachSymbol(s, tok, func(context, symbol int) { seen.pairs[context][symbol]++ }); err != nil {
		return 0, fmt.Errorf("evaluating byte bigrams: %w", err)
	}
	bits, bytes := 0.0, int64(0)
	for a := range bigramSymbols {
		for b, n := range seen.pairs[a] {
			bits += float64(n) * cost[a][b]
			if b != bigramBoundary {
				bytes += n
			}
		}
	}
	if bytes == 0 {
		return 0, errors.New("evaluating byte bigrams: the split has no text")
	}
	return bits / float64(bytes), nil
}

// costs returns -log2 P(symbol | context).
func (m *BigramModel) costs() *[bigramSymbols][bigramSymbols]float64 {
	var unigram [bigramSymbols]int64
	for a := range m.pairs {
		for b, n := range m.pairs[a] {
			unigram[b] += n
		}
	}
	var uniform, lower [bigramSymbols]float64
	for b := range uniform {
		uniform[b] = 1.0 / bigramSymbols
	}
	wittenBell(&unigram, &uniform, &lower)
	cost := new([bigramSymbols][bigramSymbols]float64)
	for a := range m.pairs {
		wittenBell(&m.pairs[a], &lower, &cost[a])
		for b, p := range cost[a] {
			cost[a][b] = -math.Log2(p)
		}
	}
	return cost
}

// wittenBell interpolates counts with the distribution of one order lower. A
// context that was never seen leaves that as it is.
func wittenBell(counts *[bigramSymbols]int64, lower, p *[bigramSymbols]float64) {
	total, different := 0.0, 0.0
	for _, n := range counts {
		total += float64(n)
		if n > 0 {
			different++
		}
	}
	if total == 0 {
		*p = *lower
		return
	}
	for b, n := range counts {
		p[b] = (float64(n) + different*lower[b]) / (total + different)
	}
}

// eachSymbol calls f for every byte of every document of a split and for every
// document's end, with the symbol before it.
func eachSymbol(s *Stream, tok tokenizer.Tokenizer, f func(context, symbol int)) error {
	const chunk = 1 << 16
	special := tok.Special()
	ids := make([]int32, chunk)
	context := bigramBoundary
	text := func(ids []int32) {
		if len(ids) == 0 {
			return
		}
		for _, b := range tok.Decode(ids) {
			f(context, int(b))
			context = int(b)
		}
	}
	for at := int64(0); ; {
		n, err := s.Tokens(at, ids)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at += int64(n)
		from := 0
		for i, id := range ids[:n] {
			if !slices.Contains(special, id) {
				continue
			}
			text(ids[from:i])
			from = i + 1
			if id == s.Index.EOS {
				f(context, bigramBoundary)
				context = bigramBoundary
			}
		}
		text(ids[from:n])
	}
}
