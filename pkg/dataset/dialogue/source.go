package dialogue

import (
	"fmt"

	"meap/pkg/dataset"
	"meap/pkg/masking"
)

// Source gives the batches of a fine-tuning run. It implements trainer.Source: a batch is a function of (step, first row, rows), and
// the rows of a step are the same however the step is cut into micro-batches. It may be used by several goroutines at once, each with
// its own Batch.
type Source struct {
	examples []Example
	options  Options
	layout   *layout
	pad      int32
}

// NewSource returns the batches of the examples, for optimiser steps of a number of rows (micro batch x accumulation). seed
// determines the order of the examples; that of the masks is the policy's.
func NewSource(examples []Example, o Options, rows int, seed uint64) (*Source, error) {
	l, err := newLayout(examples, o, rows, seed)
	if err != nil {
		return nil, err
	}
	return &Source{examples: examples, options: o, layout: l, pad: o.Template.End()}, nil
}

// Epochs returns how often the examples have been seen, on average, after a number of steps.
func (s *Source) Epochs(steps int64) float64 {
	return float64(s.layout.position(steps)) / float64(len(s.examples))
}

// Position implements trainer.Positioner: how many examples have been taken after a number of steps, and how many times all of them.
func (s *Source) Position(steps int64) (epoch, position int64) {
	position = s.layout.position(steps)
	return position / int64(len(s.examples)), position
}

// Filled returns the share of a step's tokens that are not padding.
func (s *Source) Filled(step int64) float64 {
	filled := 0
	for _, row := range s.layout.of(step) {
		for _, p := range row {
			example, _ := s.layout.example(p.position)
			filled += s.layout.pieces[example][p.part]
		}
	}
	return float64(filled) / float64(s.layout.rows*s.options.Seq)
}

// Collate fills b with rows firstRow to firstRow+rows of a step. Steps count from 1.
func (s *Source) Collate(step int64, firstRow, rows int, b *dataset.Batch) error {
	if step < 1 || firstRow < 0 || rows < 1 || firstRow+rows > s.layout.rows {
		return fmt.Errorf("rows %d to %d of step %d: steps count from 1 and have %d rows", firstRow, firstRow+rows, step, s.layout.rows)
	}
	w := newWriter(b, rows, s.options.Seq, s.pad)
	b.Step, b.FirstRow = step, firstRow
	for r, pieces := range s.layout.of(step)[firstRow : firstRow+rows] {
		w.begin(r)
		for _, p := range pieces {
			example, epoch := s.layout.example(p.position)
			s.write(&w, s.examples[example], p.part, epoch, example)
		}
		w.end()
	}
	return nil
}

// write adds a part of an example to a row.
func (s *Source) write(w *rowWriter, e Example, part int, epoch, example int64) {
	concat := s.options.Config.Copies == CopiesConcat
	n := len(e.IDs) - 1
	if part == 0 {
		if concat && s.options.Policy.Masks(e.Answers) {
			n++ // the end of the last answer stands between the copies
		}
		w.document()
		at := w.tokens(e.IDs[:n])
		labelAnswers(w, at, e)
	}
	if part == 1 || concat && s.options.Policy.Masks(e.Answers) {
		if !s.options.Config.ConcatVisible {
			w.document()
		}
		n = len(e.IDs) - 1
		at := w.tokens(e.IDs[:n])
		w.mask(at, e, s.options.Policy, epoch, example)
	}
}

// labelAnswers makes every answer and its end the labels of the tokens before them.
func labelAnswers(w *rowWriter, at int, e Example) {
	for _, a := range e.Answers {
		for i := a.Start; i <= a.End; i++ {
			w.label(at+i-1, e.IDs[i])
		}
	}
}

// rowWriter fills the rows of a batch from the left.
type rowWriter struct {
	*dataset.Batch
	pad int32

	row      int
	next     int // the first free place in the row
	start    int // of the document under way
	position int // of the next token in its document
}

func newWriter(b *dataset.Batch, rows, seq int, pad int32) rowWriter {
	b.Resize(rows, seq)
	return rowWriter{Batch: b, pad: pad}
}

// begin goes to a row; nothing in it has a label yet.
func (w *rowWriter) begin(row int) {
	w.row, w.next = row, 0
	labels := w.Labels[row*w.Seq : (row+1)*w.Seq]
	for i := range labels {
		labels[i] = dataset.Ignore
	}
}

// document keeps what follows from seeing what is before it, and counts positions anew.
func (w *rowWriter) document() { w.start, w.position = w.next, 0 }

// tokens adds tokens to the document under way and returns the place of the first.
func (w *rowWriter) tokens(ids []int32) (at int) {
	at = w.next
	row := w.row * w.Seq
	copy(w.Inputs[row+at:], ids)
	copy(w.Original(w.row)[at:], ids)
	for i := range ids {
		w.Positions[row+at+i] = int32(w.position + i)
		w.Starts[row+at+i] = int32(w.start)
	}
	w.next += len(ids)
	w.position += len(ids)
	return at
}

func (w *rowWriter) label(at int, id int32) {
	w.Labels[w.row*w.Seq+at] = id
	w.Labelled++
}

// mask replaces tokens of the answers of the copy at a place, and makes what they were the labels of the places before them.
func (w *rowWriter) mask(at int, e Example, p masking.Targets, epoch, example int64) {
	row := w.row * w.Seq
	masked := p.Apply(w.Inputs[row+at:row+at+len(e.IDs)-1], e.Answers, epoch, example, nil)
	for _, i := range masked {
		w.label(at+int(i)-1, e.IDs[i])
		w.Masked[w.row] = append(w.Masked[w.row], int32(at)+i)
	}
}

// end fills the rest of the row: tokens without labels that see nothing and that nothing sees.
func (w *rowWriter) end() {
	row := w.row * w.Seq
	for at := w.next; at < w.Seq; at++ {
		w.Inputs[row+at], w.Original(w.row)[at] = w.pad, w.pad
		w.Positions[row+at], w.Starts[row+at] = 0, int32(at)
	}
}
