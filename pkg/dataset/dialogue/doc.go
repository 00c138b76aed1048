// Package dialogue turns dialogues into the batches of supervised fine-tuning with MEAP's two-row objective.
//
// Files of records are read into dialogues (record.go, files.go), a chat template writes each as text and says which of its tokens
// are the assistant's (template.go, jinja.go, encode.go), examples are put together into the rows of optimiser steps (layout.go), and
// a Source fills the batches (source.go). Validation are the answers of dialogues that are held out (heldout.go).
//
// # The objective
//
// An example is the token sequence of one dialogue with its answers: the assistant's turns, each followed by the token that ends it.
// Copy A is the sequence as it is, and the answers and their ends are its labels. Where an answer is longer than sft.min_target
// tokens, copy B is the same sequence with a share of the tokens of each such answer replaced by [MASK], and those tokens alone are
// its labels, each predicted at the position before it. The loss of an optimiser step is the mean over all labels of its copies.
//
// # Rows
//
// Copies are much shorter than trainer.seq, and padding costs as much time as text; so several share a row. Attention, positions and
// labels stay within each copy (Batch.Starts), which makes the loss that of one copy per row, up to rounding. An optimiser step takes
// examples in the epoch's order for as long as both copies of the next one fit into its rows: the copies of an example are always in
// the same step. What is left over is padding: no label, seen by no token.
package dialogue
