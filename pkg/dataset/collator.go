package dataset

import (
	"fmt"
	"slices"

	"meap/pkg/masking"
)

// Ignore is the label of a position that does not count in the loss.
const Ignore int32 = -100

// Batch is a micro-batch: some rows of an optimiser step. Its slices are used
// again by the next Collate.
type Batch struct {
	Rows, Seq int
	Inputs    []int32   // [Rows, Seq], with [MASK] where a token is masked
	Labels    []int32   // [Rows, Seq], the original next tokens, or Ignore
	Positions []int32   // [Rows, Seq], for the position encoding
	Starts    []int32   // [Rows, Seq], index within the row of the first key that the token attends to
	Labelled  int       // labels that are not Ignore
	Masked    [][]int32 // per row, the masked positions in increasing order
	Step      int64     // from 1
	FirstRow  int       // index of row 0 in the step's whole batch

	original []int32 // [Rows, Seq+1], before masking
}

// Collator makes the batches of a run. It has no state of its own: a batch is
// a function of (step, first row, rows), and the rows of a step are the same
// however the step is cut into micro-batches. It may be used by several
// goroutines at once, each with its own Batch.
type Collator struct {
	loader      *Loader
	policy      masking.Policy
	rowsPerStep int
	end         int32 // see separate
}

// NewCollator returns the collator of a run whose optimiser steps take
// rowsPerStep rows each (micro batch x accumulation).
//
// documentMask (data.document_mask) keeps every token within its document: it
// attends to no earlier one, positions count from the document's BOS, and the
// label of an EOS, which would be the next document's BOS, is Ignore.
func NewCollator(l *Loader, p masking.Policy, rowsPerStep int, documentMask bool) (*Collator, error) {
	if rowsPerStep < 1 {
		return nil, fmt.Errorf("a step of %d rows: trainer.micro_batch and trainer.accumulate must be at least 1", rowsPerStep)
	}
	if l.Rows() < int64(rowsPerStep) {
		return nil, fmt.Errorf("the %s split in %s has %d rows of %d tokens, and one step takes %d (trainer.micro_batch x trainer.accumulate): add text to data.sources, or lower those or trainer.seq",
			l.Name, l.Dir, l.Rows(), l.Seq()+1, rowsPerStep)
	}
	return &Collator{loader: l, policy: p, rowsPerStep: rowsPerStep, end: documentEnd(l.Index, documentMask)}, nil
}

// RowsPerStep returns the rows of an optimiser step.
func (c *Collator) RowsPerStep() int { return c.rowsPerStep }

// Collate fills b with rows firstRow to firstRow+rows of a step. Steps count
// from 1. b allocates in its first call only.
func (c *Collator) Collate(step int64, firstRow, rows int, b *Batch) error {
	if step < 1 || firstRow < 0 || rows < 1 || firstRow+rows > c.rowsPerStep {
		return fmt.Errorf("rows %d to %d of step %d: steps count from 1 and have %d rows", firstRow, firstRow+rows, step, c.rowsPerStep)
	}
	seq := c.loader.Seq()
	b.resize(rows, seq)
	b.Step, b.FirstRow, b.Labelled = step, firstRow, 0
	for r := range rows {
		row := b.original[r*(seq+1) : (r+1)*(seq+1)]
		if err := c.loader.Row(c.position(step, firstRow+r), row); err != nil {
			return fmt.Errorf("row %d of step %d: %w", firstRow+r, step, err)
		}
		at := r * seq
		inputs, labels := b.Inputs[at:at+seq], b.Labels[at:at+seq]
		copy(inputs, row)
		copy(labels, row[1:])
		b.Labelled += seq - separate(c.end, inputs, labels, b.Positions[at:at+seq], b.Starts[at:at+seq])
		// The policy counts completed steps, so the first step has none.
		b.Masked[r] = c.policy.Apply(inputs, step-1, firstRow+r, b.Masked[r])
	}
	return nil
}

// Labelled returns the labels that count in a whole step: what its loss is
// divided by, so that a run does not depend on how its steps are cut.
func (c *Collator) Labelled(step int64, scratch *Batch) (int, error) {
	if c.end < 0 {
		return c.rowsPerStep * c.loader.Seq(), nil
	}
	total := 0
	for r := range c.rowsPerStep {
		if err := c.Collate(step, r, 1, scratch); err != nil {
			return 0, err
		}
		total += scratch.Labelled
	}
	return total, nil
}

// position returns where in the run a row of a step is.
func (c *Collator) position(step int64, row int) int64 {
	return (step-1)*int64(c.rowsPerStep) + int64(row)
}

// separate fills positions and starts of one row, all [seq], from its unmasked
// inputs. Where documents are kept apart, end is the EOS that ends one, and the
// labels of EOS become Ignore; else it is -1. It returns how many labels it set.
func separate(end int32, inputs, labels, positions, starts []int32) int {
	ignored := 0
	start := int32(0)
	for i, id := range inputs {
		positions[i] = int32(i) - start
		starts[i] = start
		if id == end {
			labels[i] = Ignore
			ignored++
			start = int32(i) + 1
		}
	}
	return ignored
}

// documentEnd returns the id at which separate cuts.
func documentEnd(x *Index, documentMask bool) int32 {
	if documentMask {
		return x.EOS
	}
	return -1
}

// resize makes b hold [rows, seq], keeping its memory where that suffices.
func (b *Batch) resize(rows, seq int) {
	b.Rows, b.Seq = rows, seq
	for _, s := range []*[]int32{&b.Inputs, &b.Labels, &b.Positions, &b.Starts} {
		*s = slices.Grow((*s)[:0], rows*seq)[:rows*seq]
	}
	b.original = slices.Grow(b.original[:0], rows*(seq+1))[:rows*(seq+1)]
	if all := b.Masked[:cap(b.Masked)]; len(all) < rows {
		b.Masked = append(all, make([][]int32, rows-len(all))...)
	}
	b.Masked = b.Masked[:rows]
}
