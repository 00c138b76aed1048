package dataset

import "math/bits"

// permutation is a pseudo-random order of the numbers below n that is computed,
// not stored: a Feistel network over the smallest even number of bits that
// holds n, walked along its cycle until it is below n (Black and Rogaway,
// "Ciphers with arbitrary finite domains", 2002).
type permutation struct {
	n    uint64
	half uint // bits of each half
	keys [feistelRounds]uint64
}

const (
	feistelRounds = 8
	// minHalf keeps the network wide enough to reach every order of a small n,
	// at the price of a few hundred more rounds, which is a microsecond.
	minHalf = 4
)

// newPermutation returns the order of the numbers below n > 0 for a seed and
// an epoch.
func newPermutation(n int64, seed uint64, epoch int64) permutation {
	width := uint(bits.Len64(uint64(n - 1)))
	p := permutation{n: uint64(n), half: max(minHalf, (width+1)/2)}
	key := mix(mix(seed+golden) + uint64(epoch) + golden)
	for i := range p.keys {
		key = mix(key + golden)
		p.keys[i] = key
	}
	return p
}

// at returns the i-th number of the order.
func (p *permutation) at(i int64) int64 {
	mask := uint64(1)<<p.half - 1
	x := uint64(i)
	for {
		left, right := x>>p.half, x&mask
		for _, key := range p.keys {
			left, right = right, left^mix(right^key)&mask
		}
		x = left<<p.half | right
		if x < p.n {
			return int64(x)
		}
	}
}

// golden is 2^64 divided by the golden ratio, the increment of SplitMix64.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's finaliser.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
