package dataset

import (
	"fmt"
	"math"
)

// HeldOut gives the rows of a split unmasked, for validation: the same rows in the same order each time, a sample of the
// whole split however few are taken. The begin of a document is no label in it, because nothing in a text says where its
// first byte stands (see SplitInfo.Labels); so its loss is what bits per byte are computed from.
type HeldOut struct {
	*Loader
	end int32 // see separate
}

// NewHeldOut returns the rows of a loader for validation; documentMask as in NewCollator.
func NewHeldOut(l *Loader, documentMask bool) *HeldOut {
	return &HeldOut{Loader: l, end: documentEnd(l.Index, documentMask)}
}

// Rows returns the number of rows.
func (h *HeldOut) Rows() int { return int(h.Loader.Rows()) }

// Fill puts rows first to first+rows into b; those beyond the last row repeat it without labels.
func (h *HeldOut) Fill(first, rows int, b *Batch) error {
	seq := h.Seq()
	b.resize(rows, seq)
	b.Step, b.FirstRow, b.Labelled = 0, first, 0
	for r := range rows {
		row := b.original[r*(seq+1) : (r+1)*(seq+1)]
		if err := h.Row(int64(min(first+r, h.Rows()-1)), row); err != nil {
			return fmt.Errorf("validation row %d: %w", first+r, err)
		}
		at := r * seq
		inputs, labels := b.Inputs[at:at+seq], b.Labels[at:at+seq]
		copy(inputs, row)
		copy(labels, row[1:])
		separate(h.end, inputs, labels, b.Positions[at:at+seq], b.Starts[at:at+seq])
		for i, label := range labels {
			if label == h.Index.BOS || first+r >= h.Rows() {
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

// BytesPerToken returns the split's bytes of text for each label that counts, NaN where it has none.
func (h *HeldOut) BytesPerToken() float64 {
	labels := h.Info.Labels(h.Index.BOS)
	if labels == 0 {
		return math.NaN()
	}
	return float64(h.Info.Bytes) / float64(labels)
}
