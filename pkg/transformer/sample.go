package transformer

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Sampling says how the next token is chosen from its logits and when a generation ends.
type Sampling struct {
	Temperature float64 // divides the logits; 0: always the most probable token (greedy)
	TopK        int     // choose among the TopK most probable tokens only; 0: among all
	TopP        float64 // then among the fewest most probable ones whose probabilities reach TopP; 0 or 1: among all
	Seed        uint64  // of the generator; a choice depends on seed, the prompt's index and the token's position only
	MaxNew      int     // tokens at most; 0: until the context is full
	Stop        []int32 // ids that end a text, such as EOS
	Never       []int32 // ids that are no text: [MASK], and the rows that pad the vocabulary
}

// Validate returns an error that names every field whose value cannot be.
func (s Sampling) Validate() error {
	var problems []error
	// NaN fails these comparisons.
	if !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0) {
		problems = append(problems, fmt.Errorf("temperature = %v: must be 0 (greedy) or above", s.Temperature))
	}
	if s.TopK < 0 {
		problems = append(problems, fmt.Errorf("top_k = %d: must be 0 (all tokens) or above", s.TopK))
	}
	if !(s.TopP >= 0 && s.TopP <= 1) {
		problems = append(problems, fmt.Errorf("top_p = %v: must be between 0 and 1", s.TopP))
	}
	if s.MaxNew < 0 {
		problems = append(problems, fmt.Errorf("max_new = %d: must be 0 (until the context is full) or above", s.MaxNew))
	}
	return errors.Join(problems...)
}

func (s Sampling) stops(id int32) bool { return slices.Contains(s.Stop, id) }

// sampler chooses the tokens of one sequence.
type sampler struct {
	Sampling
	key        uint64
	candidates []candidate
}

// candidate is a token and its probability up to a common factor.
type candidate struct {
	id     int32
	weight float64
}

func newSampler(s Sampling, sequence int) *sampler {
	return &sampler{Sampling: s, key: mix(mix(s.Seed) ^ uint64(sequence))}
}

// choose returns the token at a position, given its logits, which it may change. Of equal logits the one with the lower id comes first.
func (s *sampler) choose(logits []float32, position int) (int32, error) {
	for _, id := range s.Never {
		logits[id] = -math.MaxFloat32
	}
	best := 0
	for i, l := range logits {
		if l != l || math.IsInf(float64(l), 0) {
			return 0, fmt.Errorf("the logit of id %d is %v: the weights are not finite or have diverged; use an earlier checkpoint", i, l)
		}
		if l > logits[best] {
			best = i
		}
	}
	if s.Temperature == 0 {
		return int32(best), nil
	}
	s.candidates = s.candidates[:0]
	for i, l := range logits {
		s.candidates = append(s.candidates, candidate{int32(i), math.Exp((float64(l) - float64(logits[best])) / s.Temperature)})
	}
	among := s.filter(s.candidates)
	u := uniform(s.key, uint64(position)) * total(among)
	for _, c := range among {
		if u -= c.weight; u < 0 {
			return c.id, nil
		}
	}
	return int32(best), nil // u was rounded to the total
}

// filter returns the candidates that TopK and TopP leave.
func (s *sampler) filter(all []candidate) []candidate {
	if s.TopK == 0 && (s.TopP == 0 || s.TopP == 1) {
		return all
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.weight, a.weight) })
	if s.TopK > 0 {
		all = all[:min(s.TopK, len(all))]
	}
	if s.TopP == 0 || s.TopP == 1 {
		return all
	}
	want, sum := s.TopP*total(all), 0.0
	for i, c := range all {
		if sum += c.weight; sum >= want {
			return all[:i+1]
		}
	}
	return all
}

func total(cs []candidate) float64 {
	sum := 0.0
	for _, c := range cs {
		sum += c.weight
	}
	return sum
}
