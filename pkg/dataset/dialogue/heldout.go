package dialogue

import (
	"math"

	"meap/pkg/dataset"
)

// HeldOut gives the answers of held-out dialogues for validation: unmasked copies in the order of the examples, the same rows each
// time. It implements trainer.Validation.
type HeldOut struct {
	examples []Example
	rows     [][]int // the examples of each row
	seq      int
	pad      int32
}

// NewHeldOut returns the rows of the examples; o as for NewSource.
func NewHeldOut(examples []Example, o Options) *HeldOut {
	h := &HeldOut{examples: examples, seq: o.Seq, pad: o.Template.End()}
	used := h.seq
	for i, e := range examples {
		n := len(e.IDs) - 1
		if used+n > h.seq {
			h.rows, used = append(h.rows, nil), 0
		}
		last := len(h.rows) - 1
		h.rows[last] = append(h.rows[last], i)
		used += n
	}
	return h
}

// Rows returns the number of rows.
func (h *HeldOut) Rows() int { return len(h.rows) }

// Fill puts rows first to first+rows into b; those beyond the last one are padding.
func (h *HeldOut) Fill(first, rows int, b *dataset.Batch) error {
	w := newWriter(b, rows, h.seq, h.pad)
	b.Step, b.FirstRow = 0, first
	for r := range rows {
		w.begin(r)
		if first+r < len(h.rows) {
			for _, i := range h.rows[first+r] {
				e := h.examples[i]
				w.document()
				labelAnswers(&w, w.tokens(e.IDs[:len(e.IDs)-1]), e)
			}
		}
		w.end()
	}
	return nil
}

// BytesPerToken returns the bytes of the answers for each label, NaN where there are none.
func (h *HeldOut) BytesPerToken() float64 {
	bytes := 0
	for _, e := range h.examples {
		for _, n := range e.Bytes {
			bytes += n
		}
	}
	labels := Labels(h.examples)
	if labels == 0 {
		return math.NaN()
	}
	return float64(bytes) / float64(labels)
}
