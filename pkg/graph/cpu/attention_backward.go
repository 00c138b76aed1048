package cpu

// The gradient follows Dao 2023 (arXiv 2307.08691): with p the weights and o the
// output, and everything tile by tile,
//
//	delta = dout.o   dp = dout v^T   ds = scale p (dp - delta)
//	dv = p^T dout    dk = ds^T q     dq = ds k
//
// Each element of dk and dv is summed over the heads of the group and then the
// blocks of queries, in ascending order, and each of dq over the blocks of keys.
// That order holds whether a pair is one item, which computes the scores once and packs the
// queries of one head at a time, or its blocks are items of their own, which computes them
// twice but occupies more threads; so the choice changes no result.
func (a *attention) backward(s *Attention, dq, dk, dv, q, keys, values, out floats, lse []float32, dout floats) {
	if s.Batch == 0 || s.Queries == 0 {
		return
	}
	if s.Queries != s.Keys || s.Past != nil {
		panic("cpu: attention over a cache has no gradient")
	}
	a.start(s)
	a.single, a.rows = false, s.Queries
	a.queryBlocks = ceilDiv(a.rows, a.tileRows)
	a.dq, a.dk, a.dv = dq, dk, dv
	a.q, a.keys, a.values, a.out, a.lse, a.dout = q, keys, values, out, lse, dout
	a.whole = !a.fewPairs(s.Batch * s.KVHeads)
	heads, keyRows, rows := a.group, tileKeys, a.tileRows
	if a.whole {
		heads, keyRows, rows = 1, a.Keys, a.Queries
	}
	if dq.half != nil {
		a.sumFloats = (2*keyRows + rows) * a.HeadDim
	}
	a.run(a.keyBlocks*a.keyBlockFloats()+heads*a.queryBlocks*a.queryBlockFloats(), a.backwardPairFn, (*attention).backwardRun)
}

// sums cuts a worker's memory for gradients that will be rounded: of so many keys and queries.
func (a *attention) sums(worker, firstKey, keys, firstQuery, queries int) *attentionScratch {
	w := &a.work[worker]
	if a.sumFloats > 0 {
		x := a.packed[len(a.packed)-(worker+1)*a.sumFloats:][:a.sumFloats]
		w.dk, w.dv, w.dq = x[:keys*a.HeadDim], x[keys*a.HeadDim:2*keys*a.HeadDim], x[2*keys*a.HeadDim:][:queries*a.HeadDim]
		w.firstKey, w.firstQuery = firstKey, firstQuery
	}
	return w
}

func (c *attentionCall) keyBlockFloats() int {
	return 2*ceilDiv(tileKeys, c.nr)*c.keyPanel + ceilDiv(c.HeadDim, c.nr)*c.overKeys
}

func (c *attentionCall) queryBlockFloats() int {
	return 2*c.tileRows/c.mr*c.queryPanel + 2*ceilDiv(c.HeadDim, c.nr)*c.overQueries
}

// fewPairs says whether pairs as items would leave more threads idle than
// computing the scores twice costs: 5 products of a tile against 7.
func (a *attention) fewPairs(pairs int) bool {
	threads := a.k.pool.Threads()
	return 7*pairs < 5*ceilDiv(pairs, threads)*threads
}

func (a *attention) backwardRun() {
	a.k.pool.Run(a.pairs*a.blocks(), a.packBackwardFn)
	a.k.pool.Run(a.pairs*a.keyBlocks, a.keyBlockFn)
	a.k.pool.Run(a.pairs*a.group*a.queryBlocks, a.queryFn)
}

// blocks is the number of blocks of keys and of queries of a pair.
func (a *attention) blocks() int { return a.keyBlocks + a.group*a.queryBlocks }

// packedKeys are the packed operands of a block of keys: the rows of k and of v,
// for s and dp, and the columns of k, for dq.
type packedKeys struct{ k, v, kCols []float32 }

// packedQueries are those of a block of queries of a head: the rows of q and of
// dout, and their columns, for dk and dv.
type packedQueries struct{ q, dout, qCols, doutCols []float32 }

func (c *attentionCall) keyBlock(slot, j int) packedKeys {
	x := c.packed[slot*c.pairFloats+j*c.keyBlockFloats():]
	n := ceilDiv(tileKeys, c.nr) * c.keyPanel
	return packedKeys{x, x[n:], x[2*n:]}
}

// queryBlock returns block i of the head at a place of a slot.
func (c *attentionCall) queryBlock(slot, place, i int) packedQueries {
	x := c.packed[slot*c.pairFloats+c.keyBlocks*c.keyBlockFloats()+(place*c.queryBlocks+i)*c.queryBlockFloats():]
	n, m := c.tileRows/c.mr*c.queryPanel, ceilDiv(c.HeadDim, c.nr)*c.overQueries
	return packedQueries{x, x[n:], x[2*n:], x[2*n+m:]}
}

func (a *attention) packBackwardItem(item, worker int) {
	slot, block, w := item/a.blocks(), item%a.blocks(), &a.work[worker]
	if block < a.keyBlocks {
		a.packKeys(w, slot, slot, block)
		return
	}
	block -= a.keyBlocks
	a.packQueries(w, slot, slot, block/a.queryBlocks, block/a.queryBlocks, block%a.queryBlocks)
}

func (a *attention) packKeys(w *attentionScratch, slot, pair, block int) {
	b, kvHead := a.pair(pair)
	to := a.keyBlock(slot, block)
	j0 := block * tileKeys
	cols := min(tileKeys, a.Keys-j0)
	k, ld := a.keyRows(a.keys, b, kvHead, j0)
	v, _ := a.keyRows(a.values, b, kvHead, j0)
	x, xLD := a.block(w, k, ld, cols)
	a.packAll(to.k, a.keyPanel, right, x, xLD, true, 0, cols, 0, a.HeadDim)
	a.packAll(to.kCols, a.overKeys, right, x, xLD, false, 0, a.HeadDim, 0, cols)
	x, xLD = a.block(w, v, ld, cols)
	a.packAll(to.v, a.keyPanel, right, x, xLD, true, 0, cols, 0, a.HeadDim)
}

// packQueries packs block i of head g of a pair's group, as the head at place of the slot.
func (a *attention) packQueries(w *attentionScratch, slot, pair, place, g, i int) {
	b, kvHead := a.pair(pair)
	to := a.queryBlock(slot, place, i)
	head, r0 := kvHead*a.group+g, i*a.tileRows
	rows := min(a.tileRows, a.Queries-r0)
	q, ld := a.queryRows(a.q, b, head, r0)
	dout, _ := a.queryRows(a.dout, b, head, r0)
	out, _ := a.queryRows(a.out, b, head, r0)
	x, xLD := a.block(w, q, ld, rows)
	a.packAll(to.q, a.queryPanel, left, x, xLD, true, 0, rows, 0, a.HeadDim)
	a.packAll(to.qCols, a.overQueries, right, x, xLD, false, 0, a.HeadDim, 0, rows)
	x, xLD = a.block(w, dout, ld, rows)
	a.packAll(to.dout, a.queryPanel, left, x, xLD, true, 0, rows, 0, a.HeadDim)
	a.packAll(to.doutCols, a.overQueries, right, x, xLD, false, 0, a.HeadDim, 0, rows)
	delta, y := a.delta[(slot*a.group+place)*a.Queries+r0:], w.out[:a.HeadDim]
	for r := range rows {
		if out.half != nil {
			a.k.Widen(y, out.half[r*ld:])
		} else {
			y = out.full[r*ld:][:a.HeadDim]
		}
		delta[r] = float32(a.k.Dot(x[r*xLD:][:a.HeadDim], y))
	}
}

// backwardPair computes all gradients of a pair, one head after the other.
func (a *attention) backwardPair(pair, worker int) {
	w := a.sums(worker, 0, a.Keys, 0, a.Queries)
	for j := range a.keyBlocks {
		a.packKeys(w, worker, pair, j)
		a.clearKeys(w, pair, j)
	}
	for g := range a.group {
		for i := range a.queryBlocks {
			a.packQueries(w, worker, pair, 0, g, i)
			a.clearQueries(w, pair, g, i)
		}
		for j := range a.keyBlocks {
			for i := j * tileKeys / a.tileRows; i < a.queryBlocks; i++ {
				a.backwardTile(w, worker, pair, 0, g, i, j, true, true)
			}
		}
		for i := range a.queryBlocks {
			a.roundQueries(w, pair, g, i)
		}
	}
	for j := range a.keyBlocks {
		a.roundKeys(w, pair, j)
	}
}

// keyBlockItem computes dk and dv of one block of keys. The first blocks, which
// most queries see, come first.
func (a *attention) keyBlockItem(item, worker int) {
	j, pair := item/a.pairs, item%a.pairs
	w := a.sums(worker, j*tileKeys, tileKeys, 0, 0)
	a.clearKeys(w, pair, j)
	for g := range a.group {
		for i := j * tileKeys / a.tileRows; i < a.queryBlocks; i++ {
			a.backwardTile(w, pair, pair, g, g, i, j, true, false)
		}
	}
	a.roundKeys(w, pair, j)
}

// queryItem computes dq of one block of queries of one head. The last blocks,
// which see most keys, come first.
func (a *attention) queryItem(item, worker int) {
	i := a.queryBlocks - 1 - item/(a.pairs*a.group)
	pair, g := item/a.group%a.pairs, item%a.group
	w := a.sums(worker, 0, 0, i*a.tileRows, a.tileRows)
	a.clearQueries(w, pair, g, i)
	for j := 0; j*tileKeys < min((i+1)*a.tileRows, a.Queries); j++ {
		a.backwardTile(w, pair, pair, g, g, i, j, false, true)
	}
	a.roundQueries(w, pair, g, i)
}

// keySums returns the rows of dk or dv from key j of a pair on, where they are summed: the tensor x,
// or own, the worker's memory.
func (a *attention) keySums(w *attentionScratch, x floats, own []float32, pair, j int) (rows []float32, ld int) {
	if x.half != nil {
		return own[(j-w.firstKey)*a.HeadDim:], a.HeadDim
	}
	b, kvHead := a.pair(pair)
	y, ld := a.keyRows(x, b, kvHead, j)
	return y.full, ld
}

// querySums is the same for the rows of dq from query r of a head on.
func (a *attention) querySums(w *attentionScratch, pair, g, r int) (rows []float32, ld int) {
	if a.dq.half != nil {
		return w.dq[(r-w.firstQuery)*a.HeadDim:], a.HeadDim
	}
	b, kvHead := a.pair(pair)
	y, ld := a.queryRows(a.dq, b, kvHead*a.group+g, r)
	return y.full, ld
}

func (a *attention) clearKeys(w *attentionScratch, pair, j int) {
	dk, ld := a.keySums(w, a.dk, w.dk, pair, j*tileKeys)
	dv, _ := a.keySums(w, a.dv, w.dv, pair, j*tileKeys)
	for r := range min(tileKeys, a.Keys-j*tileKeys) {
		clear(dk[r*ld:][:a.HeadDim])
		clear(dv[r*ld:][:a.HeadDim])
	}
}

func (a *attention) clearQueries(w *attentionScratch, pair, g, i int) {
	dq, ld := a.querySums(w, pair, g, i*a.tileRows)
	for r := range min(a.tileRows, a.Queries-i*a.tileRows) {
		clear(dq[r*ld:][:a.HeadDim])
	}
}

// roundKeys writes the finished sums of a block of keys where they are to be bf16.
func (a *attention) roundKeys(w *attentionScratch, pair, j int) {
	if a.dk.half == nil {
		return
	}
	b, kvHead := a.pair(pair)
	for r := j * tileKeys; r < min((j+1)*tileKeys, a.Keys); r++ {
		dk, _ := a.keyRows(a.dk, b, kvHead, r)
		dv, _ := a.keyRows(a.dv, b, kvHead, r)
		a.k.Narrow(dk.half[:a.HeadDim], w.dk[(r-w.firstKey)*a.HeadDim:])
		a.k.Narrow(dv.half[:a.HeadDim], w.dv[(r-w.firstKey)*a.HeadDim:])
	}
}

// roundQueries is the same for a block of queries.
func (a *attention) roundQueries(w *attentionScratch, pair, g, i int) {
	if a.dq.half == nil {
		return
	}
	b, kvHead := a.pair(pair)
	for r := i * a.tileRows; r < min((i+1)*a.tileRows, a.Queries); r++ {
		dq, _ := a.queryRows(a.dq, b, kvHead*a.group+g, r)
		a.k.Narrow(dq.half[:a.HeadDim], w.dq[(r-w.firstQuery)*a.HeadDim:])
	}
}

// backwardTile adds what one tile, block i of the queries of head g, packed as the one at place of
// the slot, and block j of the keys, gives to dk and dv (if toKeys) and to dq (if toQueries).
func (a *attention) backwardTile(w *attentionScratch, slot, pair, place, g, i, j int, toKeys, toQueries bool) {
	b, kvHead := a.pair(pair)
	head, r0, j0 := kvHead*a.group+g, i*a.tileRows, j*tileKeys
	rows := min(a.tileRows, a.Queries-r0)
	cols := a.colsSeen(b, r0+rows-1, j0, min(tileKeys, a.Keys-j0))
	if cols == 0 || a.firstFrom(b, r0, r0+rows) >= j0+cols {
		return
	}
	keys, queries := a.keyBlock(slot, j), a.queryBlock(slot, place, i)
	for r, n, seen := 0, 0, 0; r < rows; r += n {
		n, seen = a.together(b, r0+r, rows-r, j0, cols)
		at := r / a.mr * a.queryPanel
		a.scores(w.s[r*tileKeys:], queries.q[at:], keys.k, n, seen)
		a.scores(w.dp[r*tileKeys:], queries.dout[at:], keys.v, n, seen)
	}
	w.setRanges(&a.attentionCall, b, r0, rows, j0, cols)
	lse := a.lse[(b*a.Heads+head)*a.Queries+r0:]
	delta := a.delta[(slot*a.group+place)*a.Queries+r0:]
	a.k.softmaxTileGrad(w, lse[:rows], delta[:rows], cols, a.Scale)
	if toKeys {
		dv, ld := a.keySums(w, a.dv, w.dv, pair, j0)
		dk, _ := a.keySums(w, a.dk, w.dk, pair, j0)
		a.addTransposed(dv, ld, w, w.s, queries.doutCols, r0, rows, j0, cols)
		a.addTransposed(dk, ld, w, w.dp, queries.qCols, r0, rows, j0, cols)
	}
	if !toQueries {
		return
	}
	dq, ld := a.querySums(w, pair, g, r0)
	for r, n, seen := 0, 0, 0; r < rows; r += n {
		n, seen = a.together(b, r0+r, rows-r, j0, cols)
		a.addWeighted(dq[r*ld:], ld, w, w.dp[r*tileKeys:], keys.kCols, n, seen)
	}
}

// addTransposed adds s^T x to y, s being the tile's [rows, cols] and x the packed
// columns of its queries. Rows before a panel of keys do not see it and are left
// out of the sum; the panels that the first row sees are taken together.
func (a *attention) addTransposed(y []float32, ld int, w *attentionScratch, s, x []float32, r0, rows, j0, cols int) {
	for c, n := 0, 0; c < cols; c += n {
		n = min((max(0, r0-j0-c)/a.mr+1)*a.mr, cols-c)
		skip := max(0, j0+c-r0) / a.perLane() / a.step * a.step
		from := skip * a.perLane()
		lanes := a.lanes(rows - from)
		a.packAll(w.panels, a.mr*lanes, left, s, tileKeys, false, c, n, from, rows-from)
		a.mul(y[c*ld:], ld, w.panels, a.mr*lanes, x[skip*a.nr:], a.overQueries, lanes, n, a.HeadDim, true)
	}
}
