package masking

import (
	"errors"
	"fmt"
	"slices"
)

// Policy decides which input tokens of a row become [MASK]. It is made by New,
// never changes, and may be used by several goroutines at once.
type Policy struct {
	config  Config
	mask    int32
	special []int32 // ids that keep_special spares, sorted
	seed    uint64
}

// New returns the policy that c describes. maskID is the id of [MASK], special
// the ids that masking.keep_special spares, and seed the run's seed
// (trainer.seed).
func New(c Config, maskID int32, special []int32, seed uint64) (Policy, error) {
	if err := errors.Join(c.Validate()...); err != nil {
		return Policy{}, err
	}
	p := Policy{config: c, mask: maskID, seed: seed}
	if p.masks() && maskID < 0 {
		return Policy{}, fmt.Errorf("masking.ratio = %v: the tokenizer has no [MASK] token; give it one with `meap tokenizer add-mask`, or set masking.scheme to %s", c.Ratio, SchemeNone)
	}
	if c.KeepSpecial {
		p.special = slices.Clone(special)
		slices.Sort(p.special)
	}
	return p, nil
}

// None returns the policy that masks nothing, as validation and inference use
// it.
func None() Policy {
	return Policy{config: Config{Scheme: SchemeNone}}
}

// masks reports whether the policy ever masks a token.
func (p Policy) masks() bool {
	return p.config.Scheme != SchemeNone && p.config.Scheme != "" && p.config.Ratio > 0
}

// Ratio returns the share of tokens that is masked after the given number of
// completed steps: masking.ratio, or what of it the warm-up has reached.
func (p Policy) Ratio(completed int64) float64 {
	if !p.masks() {
		return 0
	}
	if completed < p.config.Warmup {
		return p.config.Ratio * float64(completed) / float64(p.config.Warmup)
	}
	return p.config.Ratio
}

// Count returns how many of seq input tokens are masked after the given number
// of completed steps: none at ratio 0 or below two tokens, else
// max(1, floor(seq * ratio)), and never more than the seq-1 positions that may
// be masked.
func (p Policy) Count(seq int, completed int64) int {
	ratio := p.Ratio(completed)
	if ratio <= 0 || seq < 2 {
		return 0
	}
	return min(seq-1, max(1, int(float64(seq)*ratio)))
}

// Apply replaces tokens of inputs, one row of [seq] token ids, by [MASK] and
// returns the masked positions in increasing order, written over positions
// (whose capacity is used again, so that a caller who hands back what it got
// causes no allocation).
//
// completed is the number of optimiser steps that were completed before this
// one: 0 in the first step of a run. The reference code's step_count counts
// the same way (it moves after optimizer.step, so all micro-batches of a step
// share it), and the scheme reference is seeded 50 + completed % 51.
//
// row is the row's index in the optimiser step's whole batch, over all
// micro-batches and ranks. The last position is never masked. With
// keep_special, fewer tokens are masked where a row has too few others.
func (p Policy) Apply(inputs []int32, completed int64, row int, positions []int32) []int32 {
	positions = positions[:0]
	n := p.Count(len(inputs), completed)
	if n == 0 {
		return positions
	}
	last := len(inputs) - 1
	if p.config.Scheme == SchemeReference {
		positions = referencePositions(completed, last, n, positions)
	} else {
		positions = p.rowPositions(inputs[:last], completed, row, n, positions)
	}
	for _, i := range positions {
		inputs[i] = p.mask
	}
	return positions
}

// spared reports whether keep_special keeps id from being masked.
func (p Policy) spared(id int32) bool {
	return len(p.special) > 0 && slices.Contains(p.special, id)
}
