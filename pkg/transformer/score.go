package transformer

import (
	"context"
	"fmt"
	"slices"

	"meap/pkg/graph"
)

const (
	scoreTokens   = 2048 // of one run of a scoring program, padding included; longer rows are read in chunks
	scoreChunk    = 512  // tokens of such a chunk
	scoreShortest = 16   // the shortest rows that programs are made for
	scorePrograms = 6    // kept at a time; each has its own activations
)

// Scorer computes log-probabilities of given tokens. Rows of similar length run together, padded to a common one: powers of two,
// for which programs are compiled when first needed. Long rows are read in chunks, so that only their keys and values take memory
// that grows with the length. It is used by one goroutine at a time.
type Scorer struct {
	// Precision of the matrix products: fp32 unless set before the first call.
	Precision graph.Precision

	params   *Parameters
	tokens   int             // scoreTokens
	programs []*scoreProgram // the most recently used last
	chunks   *Generator      // for long rows; nil until there are any
}

// scoreProgram scores rows of one shape.
type scoreProgram struct {
	*graph.Program
	rows, length int
	nll          graph.Buffer
	ids, labels  []int32
	out          []float32
}

// NewScorer makes a Scorer for weights on their device. Close frees its programs; the weights stay.
func NewScorer(p *Parameters) *Scorer { return &Scorer{params: p, tokens: scoreTokens} }

// MaxSeq is the number of positions that the model was made for.
func (s *Scorer) MaxSeq() int { return s.params.config.MaxSeq }

// LogProbs returns, for each sequence, the natural logarithm of P(ids[i] | ids[0..i-1]) for i = from .. len(ids)-1. from is at least
// 1; a sequence has at most MaxSeq+1 ids, because its last is predicted and never read. A sequence's values don't depend on the
// others.
func (s *Scorer) LogProbs(ctx context.Context, ids [][]int32, from []int) ([][]float32, error) {
	if err := s.params.config.checkScored(ids, from, s.MaxSeq()); err != nil {
		return nil, err
	}
	out := make([][]float32, len(ids))
	order := make([]int, len(ids))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(ids[b]) - len(ids[a]) })
	for len(order) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		longest := len(ids[order[0]]) - 1
		if longest > s.tokens {
			i := order[0]
			scores, err := s.inChunks(ctx, ids[i], from[i])
			if err != nil {
				return nil, err
			}
			out[i], order = scores, order[1:]
			continue
		}
		length, context := s.bucket(longest), s.params.config.context(longest)
		fit := max(1, s.tokens/length)
		n := 0
		for n < min(fit, len(order)) {
			if tokens := len(ids[order[n]]) - 1; s.bucket(tokens) != length || s.params.config.context(tokens) != context {
				break
			}
			n++
		}
		if err := s.params.setContext(longest); err != nil {
			return nil, fmt.Errorf("score: %w", err)
		}
		p, err := s.program(min(powerOfTwo(n), fit), length)
		if err == nil {
			err = s.run(p, ids, from, order[:n], out)
		}
		if err != nil {
			return nil, fmt.Errorf("score: %w", err)
		}
		order = order[n:]
	}
	return out, nil
}

// inChunks scores one long sequence.
func (s *Scorer) inChunks(ctx context.Context, ids []int32, from int) ([]float32, error) {
	if s.chunks == nil || s.chunks.options.Context < len(ids)-1 {
		if s.chunks != nil {
			s.chunks.Close()
		}
		var err error
		s.chunks, err = NewGenerator(s.params, GeneratorOptions{Context: s.bucket(len(ids) - 1), Chunk: min(scoreChunk, s.tokens), Precision: s.Precision})
		if err != nil {
			s.chunks = nil
			return nil, err
		}
	}
	out, err := s.chunks.LogProbs(ctx, [][]int32{ids}, []int{from})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// bucket returns the row length that n tokens are padded to.
func (s *Scorer) bucket(n int) int { return min(max(powerOfTwo(n), scoreShortest), s.MaxSeq()) }

// powerOfTwo returns the smallest one that is at least n.
func powerOfTwo(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// run scores the sequences that rows names, which fit into the program, and puts their log-probabilities into out.
func (s *Scorer) run(p *scoreProgram, ids [][]int32, from, rows []int, out [][]float32) error {
	clear(p.ids)
	for i := range p.labels {
		p.labels[i] = graph.IgnoreLabel
	}
	for r, i := range rows {
		row := ids[i]
		copy(p.ids[r*p.length:], row[:len(row)-1])
		for j := from[i]; j < len(row); j++ {
			p.labels[r*p.length+j-1] = row[j]
		}
	}
	for name, data := range map[string][]int32{InputIDs: p.ids, InputLabels: p.labels} {
		if err := p.Upload(name, graph.Bytes(data)); err != nil {
			return err
		}
	}
	if err := p.Run(); err != nil {
		return err
	}
	if err := s.params.dev.Download(graph.Bytes(p.out), p.nll); err != nil {
		return err
	}
	for r, i := range rows {
		nll := p.out[r*p.length+from[i]-1 : r*p.length+len(ids[i])-1]
		out[i] = make([]float32, len(nll))
		for j, v := range nll {
			out[i][j] = -v
		}
	}
	return nil
}

// program returns the program for rows of a length, compiled now or earlier.
func (s *Scorer) program(rows, length int) (*scoreProgram, error) {
	for i, p := range s.programs {
		if p.rows == rows && p.length == length {
			s.programs = append(slices.Delete(s.programs, i, i+1), p)
			return p, nil
		}
	}
	if len(s.programs) == scorePrograms {
		s.programs[0].Close()
		s.programs = slices.Delete(s.programs, 0, 1)
	}
	b := graph.NewBuilder(graph.F32)
	_, nll := Build(b, s.params.config, rows, length, s.Precision).Loss()
	compiled, err := b.Compile(s.params.dev, graph.Options{Bind: s.params.Bindings()}, nll)
	if err != nil {
		return nil, fmt.Errorf("compile %d rows of %d tokens: %w", rows, length, err)
	}
	n := rows * length
	p := &scoreProgram{Program: compiled, rows: rows, length: length, nll: compiled.Output(nll),
		ids: make([]int32, n), labels: make([]int32, n), out: make([]float32, n)}
	s.programs = append(s.programs, p)
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(i % length)
	}
	if err := p.Upload(InputPositions, graph.Bytes(positions)); err != nil {
		return nil, err
	}
	return p, p.Upload(InputStarts, graph.Bytes(make([]int32, n)))
}

// Close frees the programs.
func (s *Scorer) Close() {
	for _, p := range s.programs {
		p.Close()
	}
	s.programs = nil
	if s.chunks != nil {
		s.chunks.Close()
		s.chunks = nil
	}
}

// checkScored returns an error for sequences that cannot be scored in contexts of so many tokens.
func (c Config) checkScored(ids [][]int32, from []int, context int) error {
	if len(from) != len(ids) {
		return fmt.Errorf("score: %d sequences, but %d first tokens", len(ids), len(from))
	}
	for i, row := range ids {
		if err := c.checkIDs(row); err != nil {
			return fmt.Errorf("score sequence %d: %w", i, err)
		}
		switch {
		case from[i] < 1 || from[i] > len(row):
			return fmt.Errorf("score sequence %d: the first token to score is %d of %d; it must have one before it", i, from[i], len(row))
		case len(row)-1 > context:
			return fmt.Errorf("score sequence %d: %d tokens are more than the context of %d positions (model.max_seq) and the one after them",
				i, len(row), context)
		}
	}
	return nil
}

// checkIDs returns an error that names the first id which has no row in the embedding.
func (c Config) checkIDs(ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= c.Vocab {
			return fmt.Errorf("token %d has id %d, outside the model's vocabulary of %d; is this the model's own tokenizer?", i, id, c.Vocab)
		}
	}
	return nil
}
