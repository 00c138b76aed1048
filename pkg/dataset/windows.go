package dataset

import (
	"fmt"
	"math"
	"slices"

	"meap/pkg/tokenizer"
)

// Windows are the tokens of a split as unmasked rows, in the split's order:
// what a model is validated on. A window's last label is the next one's first
// input, so that every token but the split's first is a label once; the last
// window is filled up with EOS, without labels, so that no split is too small.
//
// The BOS of a document is no label here. Where the next document begins
// nothing is asked that the text could answer, and without it the loss times
// the labels is the text's own information: BitsPerByte divides it by the
// text's bytes.
type Windows struct {
	stream        *Stream
	seq           int
	end           int32 // see separate
	total         int64 // windows of the whole split
	rows          int   // windows that are used
	bytesPerLabel float64
}

// NewWindows cuts a split into windows of seq inputs. Where limit is positive
// and there are more windows, that many are used, at even distances, always
// the same. documentMask is as for NewCollator.
func NewWindows(s *Stream, tok tokenizer.Tokenizer, seq, limit int, documentMask bool) (*Windows, error) {
	if seq < 1 {
		return nil, fmt.Errorf("trainer.seq = %d: must be at least 1", seq)
	}
	if tok.Fingerprint() != s.Index.Tokenizer {
		return nil, fmt.Errorf("the data in %s was prepared with another tokenizer; prepare it anew with this one", s.Dir)
	}
	w := &Windows{stream: s, seq: seq, end: documentEnd(s.Index, documentMask)}
	w.total = (s.Len() - 1 + int64(seq) - 1) / int64(seq)
	if w.total == 0 {
		return nil, fmt.Errorf("the %s split in %s has a single token: add text", s.Name, s.Dir)
	}
	w.rows = int(min(w.total, math.MaxInt32))
	if limit > 0 {
		w.rows = min(w.rows, limit)
	}
	return w, w.measure(tok)
}

// measure finds the bytes of text per label in the windows that are used.
func (w *Windows) measure(tok tokenizer.Tokenizer) error {
	var b Batch
	special := tok.Special()
	bytes, labels := 0, 0
	for row := range w.rows {
		if err := w.Fill(row, 1, &b); err != nil {
			return err
		}
		text := slices.DeleteFunc(b.Labels, func(id int32) bool { return id == Ignore || slices.Contains(special, id) })
		bytes += len(tok.Decode(text))
		labels += b.Labelled
	}
	w.bytesPerLabel = float64(bytes) / float64(labels)
	return nil
}

// Rows returns the number of windows.
func (w *Windows) Rows() int { return w.rows }

// BytesPerToken returns the bytes of text for each label.
func (w *Windows) BytesPerToken() float64 { return w.bytesPerLabel }

// Fill puts the windows first to first+rows into b, [rows, seq]. Rows beyond
// the last window have no labels.
func (w *Windows) Fill(first, rows int, b *Batch) error {
	b.resize(rows, w.seq)
	b.Step, b.FirstRow, b.Labelled = 0, first, 0
	for r := range rows {
		row := b.original[r*(w.seq+1) : (r+1)*(w.seq+1)]
		n, err := w.read(first+r, row)
		if err != nil {
			return fmt.Errorf("validation window %d: %w", first+r, err)
		}
		at := r * w.seq
		inputs, labels := b.Inputs[at:at+w.seq], b.Labels[at:at+w.seq]
		copy(inputs, row)
		copy(labels, row[1:])
		separate(w.end, inputs, labels, b.Positions[at:at+w.seq], b.Starts[at:at+w.seq])
		for i := range labels {
			if i+1 >= n || labels[i] == w.stream.Index.BOS {
				labels[i] = Ignore
			}
			if labels[i] != Ignore {
				b.Labelled++
			}
		}
		b.Masked[r] = b.Masked[r][:0]
	}
	return nil
}

// read fills row, [seq+1], with the tokens of a window and EOS after them, and
// returns how many tokens are the window's.
func (w *Windows) read(window int, row []int32) (int, error) {
	n := 0
	if window < w.rows {
		index := int64(window) * w.total / int64(w.rows)
		var err error
		if n, err = w.stream.Tokens(index*int64(w.seq), row); err != nil {
			return 0, err
		}
	}
	for i := n; i < len(row); i++ {
		row[i] = w.stream.Index.EOS
	}
	return n, nil
}
