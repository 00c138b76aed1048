package dataset

import "fmt"

// Loader cuts a split into rows and gives them in a shuffled order.
//
// As in the reference, rows are disjoint blocks of seq+1 tokens of the packed
// stream, whatever documents they cut: the first seq are a row's inputs, the
// last seq its labels. A rest shorter than a row at the end of the split is
// left out, so no row holds padding. Blocks go on across shards.
//
// An epoch gives every row once, in an order that (seed, epoch) determines.
// The position, which counts the rows taken since the run began, is all the
// state there is; Row may be called for any position at any time, by several
// goroutines at once.
type Loader struct {
	*Stream
	seq  int
	rows int64
	seed uint64
}

// Open maps a split of the prepared folder dir and cuts it into rows of seq+1
// tokens. seed determines the order of the rows.
func Open(dir, split string, seq int, seed uint64) (*Loader, error) {
	s, err := OpenStream(dir, split)
	if err != nil {
		return nil, err
	}
	l, err := NewLoader(s, seq, seed)
	if err != nil {
		s.Close()
		return nil, err
	}
	return l, nil
}

// NewLoader cuts an open stream into rows of seq+1 tokens.
func NewLoader(s *Stream, seq int, seed uint64) (*Loader, error) {
	if seq < 1 {
		return nil, fmt.Errorf("trainer.seq = %d: must be at least 1", seq)
	}
	l := &Loader{Stream: s, seq: seq, rows: s.Len() / (int64(seq) + 1), seed: seed}
	if l.rows == 0 {
		more := "data.sources"
		if s.Name == Validation {
			more = "data.validation or raise data.validation_fraction"
		}
		return nil, fmt.Errorf("the %s split in %s has %d tokens, and one row of trainer.seq = %d takes %d: add text to %s, or lower trainer.seq",
			s.Name, s.Dir, s.Len(), seq, seq+1, more)
	}
	return l, nil
}

// Seq returns the inputs per row.
func (l *Loader) Seq() int { return l.seq }

// Rows returns the rows of an epoch.
func (l *Loader) Rows() int64 { return l.rows }

// Epoch returns the epoch, from 0, that a position belongs to.
func (l *Loader) Epoch(position int64) int64 { return position / l.rows }

// Row fills dst, [seq+1], with the tokens of the row at a position.
func (l *Loader) Row(position int64, dst []int32) error {
	if len(dst) != l.seq+1 || position < 0 {
		return fmt.Errorf("row at position %d into %d tokens: a row of trainer.seq = %d has %d", position, len(dst), l.seq, l.seq+1)
	}
	order := newPermutation(l.rows, l.seed, l.Epoch(position))
	return l.Read(order.at(position%l.rows)*int64(l.seq+1), dst)
}
