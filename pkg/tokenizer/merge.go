package tokenizer

import (
	"math"
	"slices"
)

// merger applies a model's merges to words. It is scratch memory of one
// goroutine.
type merger struct {
	m      *model
	window int // bytes of a word that are merged at a time

	// The symbols of the word at hand, a list that is doubly linked by
	// position: id, the neighbours' positions, where the symbol starts in the
	// word, and the rank of its merge with the symbol after it.
	id         []int32
	prev, next []int32
	start      []int32
	rank       []uint32
	heap       []uint64 // rank<<32 | position, smallest first

	crossing []int32 // tokens that the text right of the frontier can begin with
}

const (
	// shortWord is up to how many symbols looking at all of them for the next
	// merge is quicker than keeping a heap.
	shortWord = 24
	// cacheWindow is a merger's window with which what is worked on stays in the
	// processor's caches.
	cacheWindow = 1 << 13
	// none ends the list of symbols.
	none = -1
)

// word appends the tokens of word to dst.
func (g *merger) word(word []byte, dst []int32) []int32 {
	size := g.window
	for len(word) > size && g.m.cuts {
		n := g.prefix(word, size)
		if n == 0 {
			size *= 2 // nothing is certain yet
			continue
		}
		for i := int32(0); i != none && int(g.start[i]) < n; i = g.next[i] {
			dst = append(dst, g.id[i])
		}
		word, size = word[n:], g.window
	}
	g.symbols(word)
	if len(g.id) == 0 {
		return dst
	}
	if len(g.id) <= shortWord {
		g.mergeShort()
	} else {
		g.fillHeap()
		for {
			rank, i, ok := g.pop()
			if !ok {
				break
			}
			g.merge(i, rank)
			g.pushAround(i)
		}
	}
	for i := int32(0); i != none; i = g.next[i] {
		dst = append(dst, g.id[i])
	}
	return dst
}

// symbols sets the list to the first symbols of word.
func (g *merger) symbols(word []byte) {
	g.id, g.start = g.id[:0], g.start[:0]
	m := g.m
	unknown := false // an unknown token stands before the next symbol
	unk := func(at int) {
		if unknown {
			g.id, g.start = append(g.id, m.unkID), append(g.start, int32(at))
		}
		unknown = false
	}
	for at := 0; at < len(word); {
		id, size := m.symbol(word[at:])
		switch {
		case id >= 0:
			unk(at)
			g.id, g.start = append(g.id, id), append(g.start, int32(at))
		case !m.byteLevel && m.fallback(word[at:at+size]):
			// As the reference does it, an unknown token that waits goes on waiting.
			for i, b := range word[at : at+size] {
				g.id, g.start = append(g.id, m.byteID[b]), append(g.start, int32(at+i))
			}
		case m.unkID >= 0:
			if !m.fuseUnk {
				unk(at)
			}
			unknown = true
		}
		at += size
	}
	unk(len(word))
	n := len(g.id)
	g.prev, g.next, g.rank = slices.Grow(g.prev[:0], n)[:n], slices.Grow(g.next[:0], n)[:n], slices.Grow(g.rank[:0], n)[:n]
	for i := range n {
		g.prev[i], g.next[i], g.rank[i] = int32(i-1), int32(i+1), noRank
		if i+1 < n {
			g.rank[i] = m.merges.rank(g.id[i], g.id[i+1])
		}
	}
	if n > 0 {
		g.next[n-1] = none
	}
}

// fallback reports whether byte fallback has a token for each of these bytes.
func (m *model) fallback(character []byte) bool {
	for _, b := range character {
		if m.byteID[b] < 0 {
			return false
		}
	}
	return true
}

// merge joins the symbol at i with the one after it, and looks up the ranks of
// the new neighbours.
func (g *merger) merge(i int32, rank uint32) {
	gone := g.next[i]
	after := g.next[gone]
	g.id[i], g.next[i] = g.m.merged[rank], after
	g.rank[gone] = noRank
	g.rank[i] = noRank
	if after != none {
		g.prev[after] = i
		g.rank[i] = g.m.merges.rank(g.id[i], g.id[after])
	}
	if before := g.prev[i]; before != none {
		g.rank[before] = g.m.merges.rank(g.id[before], g.id[i])
	}
}

// mergeShort merges until nothing is left to merge.
func (g *merger) mergeShort() {
	for {
		best, at := uint32(noRank), int32(none)
		for i := int32(0); i != none; i = g.next[i] {
			if g.rank[i] < best {
				best, at = g.rank[i], i
			}
		}
		if at == none {
			return
		}
		g.merge(at, best)
	}
}

// fillHeap puts all merges into the heap.
func (g *merger) fillHeap() {
	g.heap = g.heap[:0]
	for i, rank := range g.rank {
		if rank != noRank {
			g.heap = append(g.heap, uint64(rank)<<32|uint64(i))
		}
	}
	for i := len(g.heap)/2 - 1; i >= 0; i-- {
		g.down(i)
	}
}

// pop takes the next merge from the heap, past those that are no longer there.
func (g *merger) pop() (rank uint32, i int32, ok bool) {
	for len(g.heap) > 0 {
		top := g.heap[0]
		last := len(g.heap) - 1
		g.heap[0] = g.heap[last]
		g.heap = g.heap[:last]
		g.down(0)
		if rank, i = uint32(top>>32), int32(uint32(top)); g.rank[i] == rank {
			return rank, i, true
		}
	}
	return noRank, none, false
}

// pushAround puts the merges that the new symbol at i makes possible into the
// heap.
func (g *merger) pushAround(i int32) {
	g.push(i)
	if before := g.prev[i]; before != none {
		g.push(before)
	}
}

func (g *merger) push(i int32) {
	if g.rank[i] == noRank {
		return
	}
	h := append(g.heap, uint64(g.rank[i])<<32|uint64(i))
	for at := len(h) - 1; at > 0; {
		up := (at - 1) / 2
		if h[up] <= h[at] {
			break
		}
		h[up], h[at] = h[at], h[up]
		at = up
	}
	g.heap = h
}

func (g *merger) down(at int) {
	h := g.heap
	for {
		child := 2*at + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if h[at] <= h[child] {
			return
		}
		h[at], h[child] = h[child], h[at]
		at = child
	}
}

// prefix merges the first size bytes of a longer word and returns up to where
// the tokens are those of the whole word; 0 where that is not known. The
// symbols before it are in the list.
//
// The symbols left of a frontier are those of the whole word at every moment,
// because no merge has crossed it. Which symbol stands right of it is not
// known, but it is one that the text there begins with. So before each merge
// on the left, the frontier moves left past its last symbol as long as that
// symbol could, before this merge, be joined with any token that the text right
// of the frontier begins with. Once nothing on the left is left to merge and
// nothing can cross, the frontier is an end of a token of the whole word.
func (g *merger) prefix(word []byte, size int) int {
	for size > 0 && !g.m.byteLevel && word[size]&0xC0 == 0x80 {
		size--
	}
	g.symbols(word[:size])
	if len(g.id) == 0 {
		return 0
	}
	g.fillHeap()
	frontier, last := size, int32(len(g.id)-1)
	g.beginnings(word[frontier:])
	threat := g.threat(last)
	for {
		rank, i, ok := g.pop()
		event := uint64(math.MaxUint64)
		if ok {
			event = uint64(rank)<<32 | uint64(i)
		}
		for threat < event {
			frontier, last = int(g.start[last]), g.prev[last]
			if last == none {
				return 0
			}
			g.next[last] = none
			g.rank[last] = noRank
			g.beginnings(word[frontier:])
			threat = g.threat(last)
		}
		if !ok {
			return frontier
		}
		if i >= last || g.rank[i] != rank { // it crosses the frontier
			continue
		}
		joinsLast := g.next[i] == last
		g.merge(i, rank)
		g.pushAround(i)
		if joinsLast {
			last = i
			threat = g.threat(last)
		}
	}
}

// beginnings sets crossing to the tokens that text begins with.
func (g *merger) beginnings(text []byte) {
	g.crossing = g.crossing[:0]
	for n := 1; n <= min(g.m.longest, len(text)); n++ {
		if id, ok := g.m.vocab[string(text[:n])]; ok {
			g.crossing = append(g.crossing, id)
		}
	}
}

// threat returns the earliest moment at which the symbol at i could be joined
// with a token in crossing.
func (g *merger) threat(i int32) uint64 {
	first := uint32(noRank)
	for _, id := range g.crossing {
		first = min(first, g.m.merges.rank(g.id[i], id))
	}
	if first == noRank {
		return math.MaxUint64
	}
	return uint64(first)<<32 | uint64(i)
}
