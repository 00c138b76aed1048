package cpu

import "math"

func (a *attention) forward(s *Attention, out floats, lse []float32, q, keys, values floats) {
	if s.Batch == 0 || s.Queries == 0 {
		return
	}
	a.start(s)
	a.out, a.lse, a.q, a.keys, a.values = out, lse, q, keys, values
	block := ceilDiv(tileKeys, a.nr)*a.keyPanel + ceilDiv(a.HeadDim, a.nr)*a.overKeys
	// Pairs differ little, but a thread may be left with one while others have none.
	a.whole = s.Batch*s.KVHeads >= 4*a.k.pool.Threads()
	a.run(a.keyBlocks*block, a.forwardPairFn, (*attention).forwardRun)
}

func (a *attention) forwardRun() {
	a.k.pool.Run(a.pairs*a.keyBlocks, a.packForwardFn)
	a.k.pool.Run(a.pairs*a.headItems()*a.queryBlocks, a.forwardFn)
}

// headItems is how many items the heads of a pair are: one each, or all together
// where there is a single query.
func (a *attention) headItems() int {
	if a.single {
		return 1
	}
	return a.group
}

// forwardBlock returns the packed keys and values of key block j of the pair in a
// slot: the rows of the keys, for the scores, and the columns of the values.
func (c *attentionCall) forwardBlock(slot, j int) (keys, values []float32) {
	x := c.packed[slot*c.pairFloats:][j*(c.pairFloats/c.keyBlocks):]
	return x, x[ceilDiv(tileKeys, c.nr)*c.keyPanel:]
}

func (a *attention) packForwardItem(item, worker int) {
	a.packForward(&a.work[worker], item/a.keyBlocks, item/a.keyBlocks, item%a.keyBlocks)
}

func (a *attention) packForward(w *attentionScratch, slot, pair, j int) {
	b, kvHead := a.pair(pair)
	j0 := j * tileKeys
	cols := min(tileKeys, a.past(b)+a.Queries-j0)
	if cols <= 0 {
		return
	}
	keys, values := a.forwardBlock(slot, j)
	rows, ld := a.keyRows(a.keys, b, kvHead, j0)
	x, xLD := a.block(w, rows, ld, cols)
	a.packAll(keys, a.keyPanel, right, x, xLD, true, 0, cols, 0, a.HeadDim)
	rows, ld = a.keyRows(a.values, b, kvHead, j0)
	x, xLD = a.block(w, rows, ld, cols)
	a.packAll(values, a.overKeys, right, x, xLD, false, 0, a.HeadDim, 0, cols)
}

// forwardPair computes all heads of a pair.
func (a *attention) forwardPair(pair, worker int) {
	for j := range a.keyBlocks {
		a.packForward(&a.work[worker], worker, pair, j)
	}
	for g := range a.headItems() {
		for i := range a.queryBlocks {
			a.forwardQueries(&a.work[worker], worker, pair, g, i)
		}
	}
}

// forwardItem is one block of queries. The last blocks come first: they see the
// most keys and would keep others waiting at the end.
func (a *attention) forwardItem(item, worker int) {
	heads := a.headItems()
	pair := item / heads % a.pairs
	a.forwardQueries(&a.work[worker], pair, pair, item%heads, a.queryBlocks-1-item/(a.pairs*heads))
}

// forwardQueries computes one block of queries of head g of a pair's group, or of
// all its heads where there is a single query.
func (a *attention) forwardQueries(w *attentionScratch, slot, pair, g, block int) {
	b, kvHead := a.pair(pair)
	head := kvHead*a.group + g
	r0 := block * a.tileRows
	rows := min(a.tileRows, a.rows-r0)

	q, ld := a.queryRows(a.q, b, head, r0)
	x, xLD := a.block(w, q, ld, rows)
	a.packAll(w.q, a.queryPanel, left, x, xLD, true, 0, rows, 0, a.HeadDim)
	clear(w.out)
	clear(w.sum)
	for r := range rows {
		w.max[r] = float32(math.Inf(-1))
	}
	end := a.position(b, r0+rows-1) + 1
	for j := a.firstFrom(b, r0, r0+rows) / tileKeys; j*tileKeys < end; j++ {
		a.forwardTile(w, slot, b, r0, rows, j)
	}

	y, ld := a.queryRows(a.out, b, head, r0)
	for r := range rows {
		o := w.out[r*a.width:][:a.HeadDim]
		if y.half != nil {
			a.k.Scale(o, 1/w.sum[r], o)
			a.k.Narrow(y.half[r*ld:][:a.HeadDim], o)
		} else {
			a.k.Scale(y.full[r*ld:][:a.HeadDim], 1/w.sum[r], o)
		}
		if a.lse != nil {
			at := (b*a.Heads+head)*a.Queries + r0 + r // with a single query, rows are heads
			a.lse[at] = w.max[r] + float32(math.Log(float64(w.sum[r])))
		}
	}
}

// forwardTile adds what the rows get from key block j. Everything skipped is exactly
// zero otherwise, so the result does not depend on how rows are put into panels.
func (a *attention) forwardTile(w *attentionScratch, slot, b, r0, rows, j int) {
	keys, values := a.forwardBlock(slot, j)
	j0 := j * tileKeys
	cols := min(tileKeys, a.position(b, r0+rows-1)+1-j0)
	for r, n, seen := 0, 0, 0; r < rows; r += n {
		n, seen = a.together(b, r0+r, rows-r, j0, cols)
		a.scores(w.s[r*tileKeys:], w.q[r/a.mr*a.queryPanel:], keys, n, seen)
	}
	w.setRanges(&a.attentionCall, b, r0, rows, j0, cols)
	a.k.softmaxTile(w, rows, cols, a.width, a.Scale)
	for r, n, seen := 0, 0, 0; r < rows; r += n {
		n, seen = a.together(b, r0+r, rows-r, j0, cols)
		a.addWeighted(w.out[r*a.width:], a.width, w, w.s[r*tileKeys:], values, n, seen)
	}
}

// together says how many of the rows from r on are computed at a time, and how many of
// the cols keys from j0 on the last of them sees: a panel at the edge, where each
// sees more than the one before, and all the rest once a panel sees everything.
func (a *attention) together(b, r, rows, j0, cols int) (n, seen int) {
	n = min(a.mr, rows)
	if seen = a.colsSeen(b, r+n-1, j0, cols); seen == cols {
		n = rows
	}
	return n, seen
}

// scores computes s = x y^T for n rows of packed queries and the first seen of the
// packed keys.
func (a *attention) scores(s, x, y []float32, n, seen int) {
	a.mul(s, tileKeys, x, a.queryPanel, y, a.keyPanel, a.lanes(a.HeadDim), n, seen, false)
}

// addWeighted adds s x to y for n rows of s and the first seen keys, x being packed
// columns of these.
func (a *attention) addWeighted(y []float32, ld int, w *attentionScratch, s, x []float32, n, seen int) {
	if seen == 0 {
		return
	}
	panel := a.mr * a.lanes(seen)
	a.packAll(w.panels, panel, left, s, tileKeys, true, 0, n, 0, seen)
	a.mul(y, ld, w.panels, panel, x, a.overKeys, a.lanes(seen), n, a.HeadDim, true)
}

// colsSeen is how many of the cols keys from j0 on row r may see.
func (c *attentionCall) colsSeen(b, r, j0, cols int) int {
	return max(0, min(cols, c.position(b, r)+1-j0))
}
