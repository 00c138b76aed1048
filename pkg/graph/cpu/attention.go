package cpu

import (
	"fmt"
	"math"
)

// Attention describes causal grouped-query attention over the rows of a batch:
//
//	q, out [Batch*Queries, Heads*HeadDim]   k, v [Batch*Keys, KVHeads*HeadDim]
//	lse    [Batch*Heads*Queries]
//
// Query i of sequence b stands at position p = Past[b]+i and attends to the keys
// Starts[b*Queries+i] <= j <= p of its sequence. Head h reads kv head
// h/(Heads/KVHeads). In training Queries equals Keys and Past is nil; with a cache
// of keys and values, Keys is its capacity and Past says how many a sequence had
// before these queries, whose own keys and values are in the cache already.
type Attention struct {
	Batch, Queries, Keys    int
	Heads, KVHeads, HeadDim int
	Scale                   float32 // factor on the scores q.k
	BF16                    bool    // round the operands of every product to bf16
	Past                    []int32 // per sequence; nil stands for zeros
	Starts                  []int32 // per query; nil stands for zeros
}

// AttentionForward computes the output and, where lse is not nil, the natural
// logarithm of each query's sum of exponentials of scaled scores. Scores exist one
// tile at a time, under an online softmax (Milakov and Gimelshein 2018,
// arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). The result for a query is
// the same to the last bit however many queries and sequences are computed with
// it.
func (k *Kernels) AttentionForward(a *Attention, out, lse, q, keys, values []float32) {
	k.attention.forward(a, floats{full: out}, lse, floats{full: q}, floats{full: keys}, floats{full: values})
}

// AttentionBackward computes the gradients of q, keys and values from those of
// the output, for Queries = Keys and no Past. out and lse are the results of
// AttentionForward. dq, dk and dv are overwritten.
func (k *Kernels) AttentionBackward(a *Attention, dq, dk, dv, q, keys, values, out, lse, dout []float32) {
	k.attention.backward(a, floats{full: dq}, floats{full: dk}, floats{full: dv}, floats{full: q}, floats{full: keys}, floats{full: values},
		floats{full: out}, lse, floats{full: dout})
}

const (
	tileKeys    = 128 // keys in a tile; a multiple of 16 and of every tiles.nr
	tileQueries = 128 // queries in a tile at most: whole panels of tiles.mr
)

// attention holds a call in progress and its scratch space. As in gemm, the
// functions that the pool runs are built once.
type attention struct {
	k          *Kernels
	fp32, bf16 tiles
	budget     int // floats of packed operands kept at a time, if one pair fits
	deltaBuf   []float32
	work       []attentionScratch // per worker

	packForwardFn, forwardFn, forwardPairFn             func(item, worker int)
	packBackwardFn, backwardPairFn, keyBlockFn, queryFn func(item, worker int)
	attentionCall
}

// attentionScratch is what one worker needs for one tile.
type attentionScratch struct {
	buf      []float32
	q        []float32 // packed queries
	s, dp    []float32 // [tileQueries, tileKeys]
	panels   []float32 // s or dp, or a part of them, packed
	out      []float32 // [tileQueries, width]
	max, sum []float32 // [tileQueries]
	ranges   [2 * tileQueries]int32

	wide []float32 // a block of rows that are bf16 tensors'; see block

	// Gradients that will be rounded to bf16, while they are summed, of keys from firstKey on and of queries
	// from firstQuery on: rows of HeadDim.
	dq, dk, dv           []float32
	firstKey, firstQuery int
}

// attentionCall is one call. A pair is one kv head of one sequence, together with
// the group of heads that read it. Where there are pairs enough for all threads, each
// is one item, whose packed operands stay in its thread's cache. Otherwise pairs are
// worked on in runs whose packed operands fit the budget, and divided into blocks.
// Tensors are fp32 or bf16; what is computed and summed is fp32.
type attentionCall struct {
	*Attention
	*tiles
	out, q, keys, values floats
	dout, dq, dk, dv     floats
	lse                  []float32

	group       int // heads per kv head
	width       int // HeadDim rounded up to whole vectors
	tileRows    int // query rows in a tile at most
	rows        int // query rows of one head; with a single query, the heads of a group
	single      bool
	keyBlocks   int
	queryBlocks int

	first      int       // first pair of the run
	pairs      int       // pairs in it
	whole      bool      // pairs are items, which pack their own operands
	pairFloats int       // packed floats of a slot
	packed     []float32 // of the slots: one for each pair of the run, or for each worker
	sumFloats  int       // floats for gradients that will be rounded, of a worker
	delta      []float32 // backward: dout.out of each query of a slot

	// Floats in a panel of query rows (as A), of key rows (as B), and of columns
	// summed over the keys or over the queries of a tile (as B).
	queryPanel, keyPanel, overKeys, overQueries int
}

func (a *attention) init(k *Kernels) {
	a.k, a.budget = k, 8<<20
	a.fp32, a.bf16 = newTiles(k.isa, false), newTiles(k.isa, true)
	a.work = make([]attentionScratch, k.pool.Threads())
	a.packForwardFn, a.forwardFn, a.forwardPairFn = a.packForwardItem, a.forwardItem, a.forwardPair
	a.packBackwardFn, a.backwardPairFn, a.keyBlockFn, a.queryFn = a.packBackwardItem, a.backwardPair, a.keyBlockItem, a.queryItem
}

// start fills in what forward and backward have in common. Sizes that do not
// belong together panic.
func (a *attention) start(s *Attention) {
	if s.Heads%s.KVHeads != 0 {
		panic(fmt.Sprintf("cpu: %d heads are not a multiple of %d kv heads", s.Heads, s.KVHeads))
	}
	if s.Starts != nil && len(s.Starts) < s.Batch*s.Queries {
		panic(fmt.Sprintf("cpu: %d starts for %d queries", len(s.Starts), s.Batch*s.Queries))
	}
	a.attentionCall = attentionCall{Attention: s, tiles: &a.fp32, group: s.Heads / s.KVHeads, rows: s.Queries}
	if s.BF16 {
		a.tiles = &a.bf16
	}
	if a.single = s.Queries == 1; a.single {
		a.rows = a.group
	}
	length := 0
	for b := range s.Batch {
		n := a.past(b) + s.Queries
		if n > s.Keys {
			panic(fmt.Sprintf("cpu: sequence %d attends to %d keys and there are %d", b, n, s.Keys))
		}
		length = max(length, n)
	}
	a.width = (s.HeadDim + 15) &^ 15
	a.tileRows = tileQueries / a.mr * a.mr
	a.keyBlocks, a.queryBlocks = ceilDiv(length, tileKeys), ceilDiv(a.rows, a.tileRows)
	a.queryPanel, a.keyPanel = a.mr*a.lanes(s.HeadDim), a.nr*a.lanes(s.HeadDim)
	a.overKeys, a.overQueries = a.nr*a.lanes(tileKeys), a.nr*a.lanes(tileQueries)
	for i := range a.work {
		a.work[i].grow(a)
	}
}

// grow cuts a worker's scratch space to the sizes of the call.
func (w *attentionScratch) grow(a *attention) {
	fields := [...]*[]float32{&w.q, &w.s, &w.dp, &w.panels, &w.out, &w.max, &w.sum}
	sizes := [...]int{
		a.tileRows / a.mr * a.queryPanel, tileQueries * tileKeys, tileQueries * tileKeys,
		ceilDiv(max(tileKeys, tileQueries), a.mr) * a.mr * max(a.lanes(tileKeys), a.lanes(tileQueries)), tileQueries * a.width, tileQueries, tileQueries,
	}
	total := 0
	for i := range sizes {
		sizes[i] = (sizes[i] + 15) &^ 15
		total += sizes[i]
	}
	rest := scratch(&w.buf, total)
	for i, n := range sizes {
		*fields[i], rest = rest[:n], rest[n:]
	}
}

// run works on all pairs: each as a whole, or as many at a time as fit the budget.
func (a *attention) run(pairFloats int, pairFn func(pair, worker int), divided func(*attention)) {
	all := a.Batch * a.KVHeads
	a.pairFloats = pairFloats
	size := min(all, max(1, a.budget/pairFloats))
	slots := size
	if a.whole {
		size, slots = all, min(all, a.k.pool.Threads())
	}
	a.packed = a.k.shared(slots*pairFloats + len(a.work)*a.sumFloats)
	a.delta = scratch(&a.deltaBuf, slots*a.group*a.Queries)
	for ; a.first < all; a.first += size {
		a.pairs = min(size, all-a.first)
		if a.whole {
			a.k.pool.Run(a.pairs, pairFn)
		} else {
			divided(a)
		}
	}
	a.attentionCall = attentionCall{}
}

func (c *attentionCall) past(b int) int {
	if c.Past == nil {
		return 0
	}
	return int(c.Past[b])
}

// position is where row r of sequence b stands, and from the first key that it may
// attend to. The rows of a single query are heads, which share both.
func (c *attentionCall) position(b, r int) int {
	if c.single {
		r = 0
	}
	return c.past(b) + r
}

func (c *attentionCall) from(b, r int) int {
	if c.Starts == nil {
		return 0
	}
	if c.single {
		r = 0
	}
	return int(c.Starts[b*c.Queries+r])
}

// firstFrom is the smallest from of the rows r0 to r1.
func (c *attentionCall) firstFrom(b, r0, r1 int) int {
	least := math.MaxInt
	for r := r0; r < r1; r++ {
		least = min(least, c.from(b, r))
	}
	return least
}

// pair returns the sequence and the kv head of a pair of the run.
func (c *attentionCall) pair(i int) (b, kvHead int) {
	return (c.first + i) / c.KVHeads, (c.first + i) % c.KVHeads
}

// keyRows returns the floats of x, keys or values, from key j of a head on.
func (c *attentionCall) keyRows(x floats, b, kvHead, j int) (rows floats, ld int) {
	ld = c.KVHeads * c.HeadDim
	return x.from((b*c.Keys+j)*ld + kvHead*c.HeadDim), ld
}

// queryRows returns the floats of x, shaped like q, from row r of a head on.
func (c *attentionCall) queryRows(x floats, b, head, r int) (rows floats, ld int) {
	ld = c.Heads * c.HeadDim
	if c.single {
		return x.from(b*ld + (head+r)*c.HeadDim), c.HeadDim
	}
	return x.from((b*c.Queries+r)*ld + head*c.HeadDim), ld
}

// block returns rows of x, HeadDim numbers each, in fp32, and how far apart they are. Those that are bf16 are widened to memory of w,
// where they stay until the next call.
func (a *attention) block(w *attentionScratch, x floats, ld, rows int) (wide []float32, wideLD int) {
	if x.half == nil {
		return x.full, ld
	}
	wide = scratch(&w.wide, rows*a.HeadDim)
	for r := range rows {
		a.k.Widen(wide[r*a.HeadDim:][:a.HeadDim], x.half[r*ld:])
	}
	return wide, a.HeadDim
}

// setRanges says for each row of the tile at row r0 and key j0 which of its keys
// the row may attend to.
func (w *attentionScratch) setRanges(c *attentionCall, b, r0, rows, j0, cols int) {
	for r := range rows {
		w.ranges[2*r] = int32(max(0, c.from(b, r0+r)-j0))
		w.ranges[2*r+1] = int32(min(cols, c.position(b, r0+r)+1-j0))
	}
}
