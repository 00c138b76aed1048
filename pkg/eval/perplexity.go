package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Stream is a text as tokens.
type Stream interface {
	// Len is the number of tokens.
	Len() int
	// Tokens returns the ids from..to-1; the caller does not change them.
	Tokens(from, to int) ([]int32, error)
	// Bytes returns how many bytes of text the first n tokens stand for, or 0
	// if that is not known. Separators stand for none.
	Bytes(n int) (int64, error)
}

// Text is a Stream in memory.
type Text struct {
	IDs []int32
	// Size is the length of the original text in bytes, what IDs were made of.
	Size int64
	// Decode turns ids back into text, separators into nothing. It is needed
	// only to count the bytes of a part, that is with PerplexityConfig.Limit.
	Decode func(ids []int32) []byte
}

// Len implements Stream.
func (t *Text) Len() int { return len(t.IDs) }

// Tokens implements Stream.
func (t *Text) Tokens(from, to int) ([]int32, error) { return t.IDs[from:to], nil }

// Bytes implements Stream.
func (t *Text) Bytes(n int) (int64, error) {
	switch {
	case n >= len(t.IDs):
		return t.Size, nil
	case t.Decode == nil:
		return 0, nil
	}
	return int64(len(t.Decode(t.IDs[:n]))), nil
}

// PerplexityConfig says how a stream is cut and scored.
type PerplexityConfig struct {
	// Seq is the number of tokens predicted per window, 0 for the model's
	// largest.
	Seq int `json:"seq"`
	// Batch is the number of windows handed to the model at once, at least 1.
	Batch int `json:"batch"`
	// Limit ends after that many tokens, 0 for all.
	Limit int `json:"limit"`
	// Prefix is the id that the stream's first token is predicted from: BOS, or
	// EOS where there is no BOS.
	Prefix int32 `json:"prefix"`
	// Uncounted are ids that the model reads but is not measured on: the BOS
	// that begins every document of a packed stream, which is nothing that the
	// text says.
	Uncounted []int32 `json:"uncounted,omitempty"`
	// Progress is called after every batch with what has been measured so far
	// and the number of tokens there are; nil for none.
	Progress func(sofar PerplexityResult, tokens int) `json:"-"`
	// Bigram is the negative log-likelihood, in nats, that a bigram model gives
	// a token after the one before it; nil where there is none. It is summed
	// over the very tokens that the model is measured on.
	Bigram func(before, id int32) float64 `json:"-"`
}

// PerplexityResult holds sums pooled over the whole stream.
type PerplexityResult struct {
	Source        string  `json:"source,omitempty"`
	Tokens        int     `json:"tokens"`
	Bytes         int64   `json:"bytes,omitempty"`
	Windows       int     `json:"windows"`
	Seq           int     `json:"seq"`
	Nats          float64 `json:"nats"`           // total negative log-likelihood
	NatsPerToken  float64 `json:"nats_per_token"` // Nats / Tokens
	Perplexity    float64 `json:"perplexity"`     // exp(NatsPerToken)
	BitsPerByte   float64 `json:"bits_per_byte,omitempty"`
	TokensPerByte float64 `json:"tokens_per_byte,omitempty"`
	// What PerplexityConfig.Bigram gives on the same tokens; 0 where there is
	// none.
	BigramNats        float64 `json:"bigram_nats,omitempty"`
	BigramPerplexity  float64 `json:"bigram_perplexity,omitempty"`
	BigramBitsPerByte float64 `json:"bigram_bits_per_byte,omitempty"`
}

// Window is one piece of a stream: the model reads the tokens Start..End-1 and
// the tokens Score..End-1 count. Start is -1 where the prefix token comes first.
type Window struct {
	Start, Score, End int
}

// Windows cuts n tokens into windows that predict every token exactly once, at
// most seq of them each, as lm-evaluation-harness does with one token of
// context (lm_eval/utils.py, get_rolling_token_windows): the first window begins
// with the prefix token, the following ones with the last token before them, and
// a short last window is extended to the left so that its tokens keep a long
// context.
func Windows(n, seq int) []Window {
	var w []Window
	for done := 0; done < n; {
		end := min(done+seq, n)
		start := -1
		if done > 0 {
			start = end - seq - 1
		}
		w = append(w, Window{Start: start, Score: done, End: end})
		done = end
	}
	return w
}

// Perplexity scores a stream in disjoint windows.
func Perplexity(ctx context.Context, m Scorer, s Stream, cfg PerplexityConfig) (PerplexityResult, error) {
	seq := cfg.Seq
	if seq == 0 {
		seq = m.MaxSeq()
	}
	if seq < 1 || seq > m.MaxSeq() {
		return PerplexityResult{}, fmt.Errorf("perplexity: --seq %d: the model takes 1 to %d", cfg.Seq, m.MaxSeq())
	}
	if cfg.Limit < 0 {
		return PerplexityResult{}, fmt.Errorf("perplexity: --limit %d: give a number of tokens, or 0 for all", cfg.Limit)
	}
	if cfg.Batch < 1 {
		return PerplexityResult{}, fmt.Errorf("perplexity: --batch %d: at least 1", cfg.Batch)
	}
	n := s.Len()
	if cfg.Limit > 0 {
		n = min(n, cfg.Limit)
	}
	if n == 0 {
		return PerplexityResult{}, errors.New("perplexity: the text holds no tokens; give a text that is not empty")
	}
	res := PerplexityResult{Seq: seq}
	windows := Windows(n, seq)
	for len(windows) > 0 {
		group := windows[:min(cfg.Batch, len(windows))]
		windows = windows[len(group):]
		seqs := make([]Sequence, len(group))
		for i, w := range group {
			ids, err := s.Tokens(max(w.Start, 0), w.End)
			if err != nil {
				return PerplexityResult{}, fmt.Errorf("perplexity: reading tokens %d to %d: %w", max(w.Start, 0), w.End, err)
			}
			if w.Start < 0 {
				ids = append([]int32{cfg.Prefix}, ids...)
			}
			seqs[i] = Sequence{IDs: ids, From: w.Score - w.Start}
		}
		what := fmt.Sprintf("perplexity: tokens %d to %d", group[0].Score, group[len(group)-1].End)
		scores, err := logProbs(ctx, m, seqs, what)
		if err != nil {
			return PerplexityResult{}, err
		}
		for i, row := range scores {
			for j, logp := range row {
				at := seqs[i].From + j
				before, id := seqs[i].IDs[at-1], seqs[i].IDs[at]
				if slices.Contains(cfg.Uncounted, id) {
					continue
				}
				res.Nats -= float64(logp)
				res.Tokens++
				if cfg.Bigram != nil {
					res.BigramNats += cfg.Bigram(before, id)
				}
			}
		}
		res.Windows += len(group)
		if cfg.Progress != nil {
			res.finish(0)
			cfg.Progress(res, n)
		}
	}
	if res.Tokens == 0 { // a perplexity of 1 would be that of a perfect model
		return PerplexityResult{}, fmt.Errorf("perplexity: of the first %d tokens none is text that is measured; raise --limit, or give a text that is not empty", n)
	}
	bytes, err := s.Bytes(n)
	if err != nil {
		return PerplexityResult{}, fmt.Errorf("perplexity: counting the text's bytes: %w", err)
	}
	res.finish(bytes)
	if math.IsInf(res.Perplexity, 0) {
		return PerplexityResult{}, fmt.Errorf("perplexity: %.4g nats per token is beyond what a perplexity can show; the model has diverged, evaluate an earlier checkpoint", res.NatsPerToken)
	}
	return res, nil
}

// finish derives the means from the sums.
func (r *PerplexityResult) finish(bytes int64) {
	r.Bytes = bytes
	r.NatsPerToken = r.Nats / float64(max(1, r.Tokens))
	r.Perplexity = math.Exp(r.NatsPerToken)
	if r.BigramNats > 0 {
		r.BigramPerplexity = math.Exp(r.BigramNats / float64(max(1, r.Tokens)))
	}
	if bytes > 0 {
		r.BigramBitsPerByte = r.BigramNats / math.Ln2 / float64(bytes)
		r.BitsPerByte = r.Nats / math.Ln2 / float64(bytes)
		r.TokensPerByte = float64(r.Tokens) / float64(bytes)
	}
}
