// Package eval measures trained models: perplexity of a text and the
// needle-in-a-haystack grid, each in a file of its own, and a report that
// shows the figures as results.json, a table, a picture and one HTML page.
//
// Scoring is a pure function of token ids and log-probabilities, or of answers.
// The package knows no device and no model: what it evaluates stands behind
// [Scorer] and [Generator], how text becomes tokens behind [Tokenizer].
package eval

import (
	"context"
	"fmt"
	"math"
)

// Sequence is one row of tokens to be scored.
type Sequence struct {
	IDs []int32
	// From is the index of the first token whose probability is wanted, at
	// least 1: the first token has nothing to be predicted from.
	From int
}

// Scorer is a language model as this package sees it.
type Scorer interface {
	// LogProbs returns, for each sequence, the natural logarithm of
	// P(IDs[i] | IDs[0..i-1]) for i = From .. len(IDs)-1, so len(IDs)-From
	// values. Sequences of one call may differ in length; they are a batch
	// only in the sense that the model may compute them together, and the
	// values must not depend on which others are in it.
	LogProbs(ctx context.Context, seqs []Sequence) ([][]float32, error)

	// MaxSeq is the number of positions that the model was made for. A
	// sequence may hold one token more, because its last token is predicted
	// and never read.
	MaxSeq() int
}

// Generator is a language model that continues prompts.
type Generator interface {
	// Generate continues each prompt by the most likely token again and again
	// and returns what it added: at most maxNew tokens, fewer where the model
	// ends its text (the token that does so is left out) or the context is
	// full. What one prompt gets must not depend on which others are in the
	// call.
	Generate(ctx context.Context, prompts [][]int32, maxNew int) ([][]int32, error)
}

// LanguageModel both scores and generates.
type LanguageModel interface {
	Scorer
	Generator
}

// Tokenizer is the part of a tokenizer that the evaluations need.
type Tokenizer interface {
	// Encode appends the ids of text to dst; it adds no separators.
	Encode(text []byte, dst []int32) []int32
	Decode(ids []int32) []byte
	// BOS is the id that a training sequence starts with, negative if the
	// vocabulary has none.
	BOS() int32
}

// logProbs calls the scorer and checks what comes back, so that a broken or
// diverged model ends in words and not in a NaN in a table. what names the
// work for the error.
func logProbs(ctx context.Context, m Scorer, seqs []Sequence, what string) ([][]float32, error) {
	scores, err := m.LogProbs(ctx, seqs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(scores) != len(seqs) {
		return nil, fmt.Errorf("%s: the model scored %d sequences of %d", what, len(scores), len(seqs))
	}
	for i, row := range scores {
		if want := len(seqs[i].IDs) - seqs[i].From; len(row) != want {
			return nil, fmt.Errorf("%s: the model returned %d log-probabilities for %d tokens", what, len(row), want)
		}
		for j, v := range row {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				at := seqs[i].From + j
				return nil, fmt.Errorf("%s: the log-probability of token %d (id %d) is %v: the weights are not finite or have diverged; evaluate an earlier checkpoint",
					what, at, seqs[i].IDs[at], v)
			}
		}
	}
	return scores, nil
}

// sum adds in float64, in order.
func sum(logp []float32) float64 {
	var s float64
	for _, v := range logp {
		s += float64(v)
	}
	return s
}

// encodeAfter returns the ids that text has when it stands after before: the
// ids of both together less those of before alone. Tokenizers that put a blank
// in front of every text (Llama 2) would otherwise leave one at the seam. Where
// the two merge across the seam the ids of text alone are taken, since before
// is already part of a sequence that cannot change.
func encodeAfter(tok Tokenizer, before, text string) []int32 {
	head := tok.Encode([]byte(before), nil)
	both := tok.Encode([]byte(before+text), nil)
	if len(both) < len(head) {
		return tok.Encode([]byte(text), nil)
	}
	for i, id := range head {
		if both[i] != id {
			return tok.Encode([]byte(text), nil)
		}
	}
	return both[len(head):]
}
