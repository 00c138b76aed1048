package masking

import (
	"math/bits"
	"slices"
)

// The reference code (scitix/MEAP, MEAP-Pretain/pretrained/*.py) draws with
// Python's random module:
//
//	random.seed(50 + step % 51)
//	random.sample(range(0, T-1), n)
//
// What follows gives the same positions as CPython 3: the Mersenne Twister of
// Modules/_randommodule.c and seed, _randbelow and sample of Lib/random.py.
// testdata/cpython.json, written by scripts/masking-vectors.py, proves it.

// referencePositions appends the n positions out of [0, population) that the
// reference code masks after the given number of completed steps, in
// increasing order. 0 < n <= population.
func referencePositions(completed int64, population, n int, positions []int32) []int32 {
	var g mersenneTwister
	g.seed(uint32(50 + completed%51))

	if population <= sampleSetSize(n) {
		return samplePool(&g, population, n, positions)
	}
	return sampleSet(&g, population, n, positions)
}

// sampleSetSize is the bound in random.sample under which it draws from a list
// of the whole population: what Python estimates a set of n elements to take.
func sampleSetSize(n int) int {
	size := 21
	if n > 5 {
		table := 1 // 4 ** ceil(log(3n, 4)); 3n is no power of four, so integers are exact here
		for table < 3*n {
			table *= 4
		}
		size += table
	}
	return size
}

// samplePool is random.sample's way for a large share of the population: draw
// from a list, and fill the hole with the list's last element. The drawn
// element is parked where that last one was, so the list itself ends in the
// sample and positions is the only memory.
func samplePool(g *mersenneTwister, population, n int, positions []int32) []int32 {
	pool := slices.Grow(positions[:0], population)[:population]
	for i := range pool {
		pool[i] = int32(i)
	}
	for i := range n {
		j, end := g.below(population-i), population-i-1
		pool[j], pool[end] = pool[end], pool[j]
	}
	copy(pool, pool[population-n:])
	slices.Sort(pool[:n])
	return pool[:n]
}

// sampleSet is random.sample's way for a small share: draw, and draw again
// what was drawn before. Positions are kept sorted, so that looking one up
// needs no set.
func sampleSet(g *mersenneTwister, population, n int, positions []int32) []int32 {
	positions = slices.Grow(positions[:0], n)
	for len(positions) < n {
		j := int32(g.below(population))
		if at, drawn := slices.BinarySearch(positions, j); !drawn {
			positions = slices.Insert(positions, at, j)
		}
	}
	return positions
}

// mersenneTwister is MT19937 (Matsumoto and Nishimura, 1998), the generator
// behind Python's random module.
type mersenneTwister struct {
	state [mtSize]uint32
	next  int // index of the next word of state to give out
}

const (
	mtSize  = 624
	mtShift = 397
	mtUpper = 1 << 31
)

// seed is random.seed(key) for 0 <= key < 2^32: init_by_array with one word.
func (g *mersenneTwister) seed(key uint32) {
	s := &g.state
	s[0] = 19650218
	for i := 1; i < mtSize; i++ {
		s[i] = 1812433253*(s[i-1]^s[i-1]>>30) + uint32(i)
	}
	i := 1
	advance := func() {
		if i++; i == mtSize {
			s[0] = s[mtSize-1]
			i = 1
		}
	}
	for range mtSize {
		// The index into the key, which init_by_array adds, is always 0.
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1664525) + key
		advance()
	}
	for range mtSize - 1 {
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1566083941) - uint32(i)
		advance()
	}
	s[0] = mtUpper
	g.next = mtSize
}

// uint32 returns the next 32 random bits.
func (g *mersenneTwister) uint32() uint32 {
	if g.next == mtSize {
		s := &g.state
		for i := range s {
			y := s[i]&mtUpper | s[(i+1)%mtSize]&(mtUpper-1)
			s[i] = s[(i+mtShift)%mtSize] ^ y>>1 ^ -(y&1)&0x9908b0df
		}
		g.next = 0
	}
	y := g.state[g.next]
	g.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// below is random._randbelow(n) for 0 < n < 2^32: as many bits as n has, drawn
// again while they are not below n.
func (g *mersenneTwister) below(n int) int {
	shift := 32 - bits.Len32(uint32(n))
	for {
		if r := int(g.uint32() >> shift); r < n {
			return r
		}
	}
}
