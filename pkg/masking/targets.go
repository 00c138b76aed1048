package masking

import (
	"fmt"
	"math"
	"slices"
)

// Span is the positions Start to End-1 of a row.
type Span struct{ Start, End int }

// Len returns the number of positions.
func (s Span) Len() int { return s.End - s.Start }

// Targets is MEAP's policy for supervised fine-tuning: of each answer with more than a given number of tokens,
// max(1, floor(length * ratio)) tokens become [MASK]. Like Policy it never changes and may be used by several goroutines at once.
type Targets struct {
	ratio     float64
	minTarget int
	mask      int32
	seed      uint64
}

// NewTargets returns the policy. maskID is the id of [MASK], seed the run's seed; at ratio 0 nothing is ever masked.
func NewTargets(ratio float64, minTarget int, maskID int32, seed uint64) (Targets, error) {
	if math.IsNaN(ratio) || ratio < 0 || ratio > MaxRatio {
		return Targets{}, fmt.Errorf("sft.ratio = %v: must be between 0 and %v (the paper fine-tunes with 0.1)", ratio, MaxRatio)
	}
	if ratio > 0 && maskID < 0 {
		return Targets{}, fmt.Errorf("sft.ratio = %v: the tokenizer has no [MASK] token; use a tokenizer that has one or set sft.ratio to 0", ratio)
	}
	return Targets{ratio: ratio, minTarget: minTarget, mask: maskID, seed: seed}, nil
}

// Count returns how many tokens of an answer of that length are masked.
func (t Targets) Count(length int) int {
	if t.ratio == 0 || length <= t.minTarget || length == 0 {
		return 0
	}
	return max(1, int(float64(length)*t.ratio))
}

// Masks reports whether any of the answers has a token masked.
func (t Targets) Masks(answers []Span) bool {
	return slices.ContainsFunc(answers, func(s Span) bool { return t.Count(s.Len()) > 0 })
}

// Apply replaces tokens of the answers, which lie in ids in increasing order, by [MASK] and returns the masked positions in
// increasing order, written over positions as in Policy.Apply. Which ones they are depends on (seed, epoch, example) and on the
// answers' lengths; every set of the right size is equally likely.
func (t Targets) Apply(ids []int32, answers []Span, epoch, example int64, positions []int32) []int32 {
	positions = positions[:0]
	g := newGenerator(t.seed, epoch, int(example))
	for _, s := range answers {
		needed := t.Count(s.Len())
		for i := s.Start; needed > 0; i++ {
			// Selection sampling, as for the rows of pre-training.
			if g.below(uint64(s.End-i)) < uint64(needed) {
				ids[i] = t.mask
				positions = append(positions, int32(i))
				needed--
			}
		}
	}
	return positions
}
