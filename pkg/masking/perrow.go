package masking

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// rowPositions appends n positions of candidates to positions, in increasing
// order, every set of n candidates being equally likely.
//
// It is selection sampling (Knuth, The Art of Computer Programming vol. 2,
// section 3.4.2, algorithm S): a candidate is taken with probability
// needed/remaining. That needs no memory, gives the positions in order, and
// spends one random number per candidate, which is nothing beside a training
// step.
func (p Policy) rowPositions(candidates []int32, completed int64, row, n int, positions []int32) []int32 {
	remaining := len(candidates)
	for _, id := range candidates {
		if p.spared(id) {
			remaining--
		}
	}
	needed := min(n, remaining)
	positions = slices.Grow(positions, needed)
	g := newGenerator(p.seed, completed, row)
	for i, id := range candidates {
		if needed == 0 {
			break
		}
		if p.spared(id) {
			continue
		}
		if g.below(uint64(remaining)) < uint64(needed) {
			positions = append(positions, int32(i))
			needed--
		}
		remaining--
	}
	return positions
}

// generator gives the random numbers of one row of one step: a PCG-DXSM whose
// 128 bits of state are a hash of (seed, completed, row). It lives on the stack
// and shares nothing, so rows may be masked in any order by anybody.
type generator struct{ pcg rand.PCG }

func newGenerator(seed uint64, completed int64, row int) generator {
	h := mix(seed + golden)
	h = mix(h + uint64(completed) + golden)
	h = mix(h + uint64(row) + golden)
	return generator{pcg: *rand.NewPCG(h, mix(h+golden))}
}

// golden is 2^64 divided by the golden ratio, the increment of SplitMix64.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's finaliser: a bijection of 64-bit words in which every
// input bit flips every output bit with probability close to one half.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below returns a number uniform in [0, n), without bias: Lemire, "Fast random
// integer generation in an interval" (2019).
func (g *generator) below(n uint64) uint64 {
	hi, lo := bits.Mul64(g.pcg.Uint64(), n)
	if lo < n {
		for threshold := -n % n; lo < threshold; {
			hi, lo = bits.Mul64(g.pcg.Uint64(), n)
		}
	}
	return hi
}
