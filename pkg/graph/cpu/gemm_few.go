package cpu

const (
	fewPanels = 4       // of A, at most, where B is packed where it is used whatever its size
	fewStrips = 8       // of columns for each thread, at least, where A has more
	fewWords  = 1 << 17 // of A packed at a time: what stays in the L2 cache while B passes

	stripPanels = 2 // of B packed at a time, where its rows are cut
)

// isFew says whether there are so few rows that B, which then is much larger than the work on it, is better packed where it is used: if
// some blocks of A stay in the cache meanwhile, and there are columns for all threads.
func (p *product) isFew(threads int) bool {
	return p.aPanels <= fewPanels || p.m <= p.fewRows && ceilDiv(p.n, p.nr) >= fewStrips*threads
}

// mulFew serves products of few rows, as in decoding, and those with the head, whose logits are computed for some tokens at a time. As
// many blocks of A are packed as stay in the L2 cache. Then panels of B are packed into a small buffer, used and forgotten; B is
// read once and nothing of its size is written.
func (g *gemm) mulFew() {
	g.cols = g.n
	chunk := max(1, fewWords/(g.aPanels*g.mr*g.block))
	if g.itemPanels = 1; !g.b.Trans {
		g.itemPanels = stripPanels // each row of B is read in longer pieces
	}
	for g.q0 = 0; g.q0 < g.blocks; g.q0 = g.q1 {
		g.q1 = min(g.q0+chunk, g.blocks)
		g.packRows()
		g.run(g.worth(), ceilDiv(ceilDiv(g.n, g.nr), g.itemPanels), g.stripFn)
	}
}

// packRows packs the blocks q0..q1 of all rows of A.
func (g *gemm) packRows() {
	words := g.aPanels * g.mr * (min(g.q1*g.block, g.lanesAll) - g.q0*g.block)
	g.aPacked = scratch(&g.aBuf, words)
	g.run(words >= serialPacking, (g.q1-g.q0)*ceilDiv(g.aPanels, packItem), g.rowsFn)
}

func (g *gemm) packRowsItem(item, worker int) {
	blocks := g.q1 - g.q0
	q, from := g.q0+item%blocks, item/blocks*packItem
	_, count := g.lanesOf(q)
	g.packA(g.aBlock(q)[from*count*g.mr:], q, from, min(from+packItem, g.aPanels), worker)
}

// aBlock is block q of all rows of A, packed.
func (p *product) aBlock(q int) []float32 { return p.aPacked[(q-p.q0)*p.block*p.aPanels*p.mr:] }

// strip computes the columns of some panels of B, or adds to them what the blocks q0..q1 give.
func (g *gemm) strip(item, worker int) {
	b := scratch(&g.workBuf[worker], g.itemPanels*g.block*g.nr)
	j := item * g.itemPanels
	col := j * g.nr
	cols := min(g.itemPanels*g.nr, g.n-col)
	acc := g.q0 > 0 || g.begin(g.c[col:], g.ldc, 0, col, g.m, cols)
	for q := g.q0; q < g.q1; q++ {
		_, count := g.lanesOf(q)
		g.packB(b, q, j, j+ceilDiv(cols, g.nr), worker)
		g.tiles.mul(g.c[col:], g.ldc, g.aBlock(q), count*g.mr, b, count*g.nr, count, g.m, cols, q > 0 || acc)
	}
}
