package dataset

import (
	"errors"
	"fmt"
	"math"
)

// BigramModel is the model that a trained Transformer has to beat: it predicts
// a token from the one before it and nothing else.
//
// Probabilities are interpolated Kneser-Ney's (Chen and Goodman, "An empirical
// study of smoothing techniques for language modeling", 1999, section 2.7, of
// those there the one that predicts best). With c(a, b) counted in the
// training text, c(a) its sum over b, and d(a) the number of different b seen
// after a,
//
//	P(b | a) = (max(c(a, b) - D, 0) + D d(a) P(b)) / c(a)
//	D        = n1 / (n1 + 2 n2)
//
// n1 and n2 being the numbers of pairs that occur once and twice, and one more,
// so that D is neither 0 nor 1 in a text that has none of them. P(b) goes by
// the number of different tokens e(b) that b was seen after, smoothed as Witten
// and Bell do it: with E the sum of e(b) over b, T the number of b with
// e(b) > 0, and V ids,
//
//	P(b) = (e(b) + T / V) / (E + T)
//
// Nothing is left to tune, and no token is impossible. The begin of a document
// is never predicted: see SplitInfo.Labels.
type BigramModel struct {
	// Tokens is how many tokens of the split were counted.
	Tokens int64

	pairs    map[bigram]int64
	discount float64
	after    []continuations // by a
	lower    []float64       // by b: P(b)
}

type bigram struct{ a, b int32 }

// continuations are what was seen after a token: how many tokens, how many
// different ones.
type continuations struct{ tokens, different float64 }

// maxBigramTokens bounds what is counted. More text makes another model of
// pairs hardly better, and would take minutes and gigabytes.
const maxBigramTokens = 1 << 25

// NewBigramModel counts the tokens of a split, at most the first 32 million.
func NewBigramModel(s *Stream) (*BigramModel, error) {
	m := &BigramModel{pairs: make(map[bigram]int64), Tokens: min(s.Len(), maxBigramTokens)}
	ids := make([]int32, 1<<16)
	before := s.Index.EOS // the first document follows none, as if it followed one
	for at := int64(0); at < m.Tokens; at += int64(len(ids)) {
		ids = ids[:min(int64(len(ids)), m.Tokens-at)]
		if err := s.Read(at, ids); err != nil {
			return nil, fmt.Errorf("counting bigrams: %w", err)
		}
		for _, id := range ids {
			if id != s.Index.BOS {
				m.pairs[bigram{before, id}]++
			}
			before = id
		}
	}
	if len(m.pairs) == 0 {
		return nil, errors.New("counting bigrams: the split has no text")
	}
	m.smooth(s.Index.Vocab)
	return m, nil
}

// smooth derives the probabilities of ids below vocab from the pairs.
func (m *BigramModel) smooth(vocab int) {
	m.after = make([]continuations, vocab)
	m.lower = make([]float64, vocab)
	once, twice, seen := 1.0, 1.0, 0.0
	for p, n := range m.pairs {
		m.after[p.a].tokens += float64(n)
		m.after[p.a].different++
		if m.lower[p.b] == 0 {
			seen++
		}
		m.lower[p.b]++
		switch n {
		case 1:
			once++
		case 2:
			twice++
		}
	}
	m.discount = once / (once + 2*twice)
	for b := range m.lower {
		m.lower[b] = (m.lower[b] + seen/float64(vocab)) / (float64(len(m.pairs)) + seen)
	}
}

// Probability returns P(b | a) of two ids of the vocabulary.
func (m *BigramModel) Probability(a, b int32) float64 {
	after := m.after[a]
	if after.tokens == 0 {
		return m.lower[b]
	}
	return (max(float64(m.pairs[bigram{a, b}])-m.discount, 0) + m.discount*after.different*m.lower[b]) / after.tokens
}

// Nats returns -ln P(b | a), for eval.PerplexityConfig.
func (m *BigramModel) Nats(a, b int32) float64 { return -math.Log(m.Probability(a, b)) }
