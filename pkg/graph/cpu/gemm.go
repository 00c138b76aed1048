package cpu

// The block sizes of a product, as tried against OpenBLAS: a block of B
// (blockLanes x a few hundred columns) stays in the L2 cache while panels of A
// pass through L1.
const (
	packedWords   = 4 << 20 // of B packed at a time, at most
	packedCols    = 1024    // columns of B packed at a time, at least
	packItem      = 4       // panels packed per item of the pool
	fewPanels     = 4       // up to so many panels of A, B is packed where it is used
	serialWork    = 1 << 17 // multiply-adds that are not worth another thread
	serialPacking = 1 << 14 // words of B that are not worth one
)

// Mat is an operand: a row-major matrix, or a part of one, whose rows begin LD
// elements apart. With Trans set, the operand is the transpose of what is stored.
type Mat struct {
	Data  []float32
	LD    int
	Trans bool
}

// NT is the forward product of a Linear layer: y[m,n] = x[m,k] w[n,k]^T, added
// to y where acc is set. With bf16 set, the operands are rounded to bf16 and
// the sums stay in fp32.
func (k *Kernels) NT(y, x, w []float32, m, n, kk int, bf16, acc bool) {
	k.Mul(y, n, Mat{Data: x, LD: kk}, Mat{Data: w, LD: kk, Trans: true}, m, n, kk, bf16, acc)
}

// NN is its gradient with respect to the input: dx[m,k] = dy[m,n] w[n,k].
func (k *Kernels) NN(dx, dy, w []float32, m, n, kk int, bf16, acc bool) {
	k.Mul(dx, kk, Mat{Data: dy, LD: n}, Mat{Data: w, LD: kk}, m, kk, n, bf16, acc)
}

// TN is its gradient with respect to the weight: dw[n,k] = dy[m,n]^T x[m,k].
func (k *Kernels) TN(dw, dy, x []float32, m, n, kk int, bf16, acc bool) {
	k.Mul(dw, kk, Mat{Data: dy, LD: n, Trans: true}, Mat{Data: x, LD: kk}, n, kk, m, bf16, acc)
}

// Mul computes c[m,n] = a[m,k] b[k,n], or adds it to c where acc is set; rows of
// c begin ldc elements apart. With bf16 set, both operands are rounded to bf16
// (nearest, ties to even) while they are packed, and the sums stay in fp32. c
// must not overlap a or b.
//
// Every element is summed in an order that depends on k only. Where
// bf16 is multiplied natively (VDPBF16PS), subnormal values count as zero.
func (k *Kernels) Mul(c []float32, ldc int, a, b Mat, m, n, kk int, bf16, acc bool) {
	k.gemm.mul(c, ldc, a, b, m, n, kk, bf16, acc)
}

// gemm holds a product in progress, and the buffers that products pack into.
// The functions that the pool runs are built once, so that a product allocates
// nothing.
type gemm struct {
	pool        *Pool
	fp32        tiles
	bf16        tiles
	packedWords int
	packFn      func(item, worker int)
	tileFn      func(item, worker int)
	stripFn     func(item, worker int)
	vectorFn    func(item, worker int)
	aBuf        []float32
	bBuf        []float32
	workBuf     [][]float32 // per worker
	product
}

// product is one call of Mul, cut into blocks of lanes.
type product struct {
	*tiles
	c       []float32
	ldc     int
	a, b    Mat
	m, n, k int
	acc     bool

	lanesAll, block, blocks int // lanes of the whole sum, of a block of it, and its blocks
	aPanels                 int
	aPacked                 []float32 // few rows: all of A

	// What is packed of B at the moment: the columns from jc on, and the blocks
	// q0..q1 of the sum.
	jc, q0, q1, cols int
	bPanels          int
	bPacked          []float32

	tileRows, tileCols int // panels in a tile of C
	tilesDown          int

	itemStrips int // strips of columns in an item of mulVector
}

func (g *gemm) init(pool *Pool, isa ISA) {
	g.pool, g.packedWords = pool, packedWords
	g.fp32, g.bf16 = newTiles(isa, false), newTiles(isa, true)
	g.packFn, g.tileFn, g.stripFn, g.vectorFn = g.packItem, g.tile, g.strip, g.vectorItem
	g.workBuf = make([][]float32, pool.Threads())
}

func (g *gemm) mul(c []float32, ldc int, a, b Mat, m, n, k int, bf16, acc bool) {
	if m == 0 || n == 0 {
		return
	}
	_ = c[(m-1)*ldc+n-1]
	if k == 0 {
		for i := 0; i < m && !acc; i++ {
			clear(c[i*ldc:][:n])
		}
		return
	}
	p := product{tiles: &g.fp32, c: c, ldc: ldc, a: a, b: b, m: m, n: n, k: k, acc: acc}
	if bf16 {
		p.tiles = &g.bf16
	}
	p.lanesAll = p.lanes(k)
	p.block = (ceilDiv(p.lanesAll, ceilDiv(p.lanesAll, p.blockLanes)) + 15) &^ 15
	p.blocks = ceilDiv(p.lanesAll, p.block)
	p.aPanels = ceilDiv(m, p.mr)
	g.product = p
	switch {
	case g.isVector():
		g.mulVector()
	case p.aPanels <= fewPanels:
		g.mulFew()
	default:
		g.mulMany()
	}
	g.product = product{}
}

// run runs items on the pool, or where that is not worth it on the caller's thread alone.
func (g *gemm) run(worth bool, n int, fn func(item, worker int)) {
	if worth {
		g.pool.Run(n, fn)
		return
	}
	for i := range n {
		fn(i, 0)
	}
}

// worth says whether the whole product takes longer than waking other threads.
func (g *gemm) worth() bool { return g.m*g.n*g.k >= serialWork }

// mulMany packs B, a part that fits into the caches at a time, and then computes
// C in tiles, each of which packs the rows of A that it needs: they are in the
// thread's own cache when they are used.
func (g *gemm) mulMany() {
	colsMax := min(g.n, max(packedCols, g.packedWords/g.lanesAll/g.nr*g.nr))
	blocksMax := max(1, g.packedWords/(colsMax*g.block))
	g.cut(colsMax)
	for g.jc = 0; g.jc < g.n; g.jc += colsMax {
		g.cols = min(colsMax, g.n-g.jc)
		g.bPanels = ceilDiv(g.cols, g.nr)
		for g.q0 = 0; g.q0 < g.blocks; g.q0 += blocksMax {
			g.q1 = min(g.q0+blocksMax, g.blocks)
			words := g.bPanels * g.nr * (min(g.q1*g.block, g.lanesAll) - g.q0*g.block)
			g.bPacked = scratch(&g.bBuf, words)
			g.run(words >= serialPacking, ceilDiv(g.bPanels, packItem)*(g.q1-g.q0), g.packFn)
			g.run(g.worth(), g.tilesDown*ceilDiv(g.bPanels, g.tileCols), g.tileFn)
		}
	}
}

// cut chooses the size of the tiles: as large as the caches allow, but as many of them,
// all alike, for each thread. Tiles beside each other pack the same rows, so columns are
// cut only where there are few rows.
func (g *gemm) cut(cols int) {
	threads, want := g.pool.Threads(), 1
	if threads > 1 {
		want = 2 * threads
	}
	down := max(want, ceilDiv(g.aPanels, g.tileRowsMax/g.mr))
	g.tileRows = ceilDiv(g.aPanels, ceilDiv(down, threads)*threads)
	g.tilesDown = ceilDiv(g.aPanels, g.tileRows)
	g.tileCols = ceilDiv(ceilDiv(cols, g.nr), ceilDiv(want, g.tilesDown))
}

// lanesOf returns where block q of the sum begins and how long it is, in lanes.
func (p *product) lanesOf(q int) (first, count int) {
	first = q * p.block
	return first, min(p.block, p.lanesAll-first)
}

// bPanel finds a packed panel of B in block q.
func (p *product) bPanel(q, j int) []float32 {
	first, count := p.lanesOf(q)
	return p.bPacked[((first-p.q0*p.block)*p.bPanels+j*count)*p.nr:]
}

// packA packs the given panels of A, for block q of the sum.
func (p *product) packA(dst []float32, q, from, to int) {
	first, count := p.lanesOf(q)
	k0 := first * p.perLane()
	p.packAll(dst, count*p.mr, left, p.a.Data, p.a.LD, !p.a.Trans, from*p.mr, min(to*p.mr, p.m)-from*p.mr,
		k0, min(count*p.perLane(), p.k-k0))
}

func (p *product) packB(dst []float32, q, from, to int) {
	first, count := p.lanesOf(q)
	k0 := first * p.perLane()
	col := from * p.nr
	p.packAll(dst, count*p.nr, right, p.b.Data, p.b.LD, p.b.Trans, p.jc+col, min(to*p.nr, p.cols)-col,
		k0, min(count*p.perLane(), p.k-k0))
}

func (g *gemm) packItem(item, _ int) {
	groups := ceilDiv(g.bPanels, packItem)
	q, from := g.q0+item/groups, item%groups*packItem
	g.packB(g.bPanel(q, from), q, from, min(from+packItem, g.bPanels))
}

// tile computes one tile of C. As many blocks of the sum as fit are packed of its
// rows; then, for as many columns of B as stay in the L2 cache, each block is added.
func (g *gemm) tile(item, worker int) {
	i0, j0 := item%g.tilesDown*g.tileRows, item/g.tilesDown*g.tileCols
	i1, j1 := min(i0+g.tileRows, g.aPanels), min(j0+g.tileCols, g.bPanels)
	row := i0 * g.mr
	rows := min(i1*g.mr, g.m) - row
	blockWords := g.tileRows * g.mr * g.block
	blocks := max(1, g.tileWords/blockWords)
	a := scratch(&g.workBuf[worker], min(blocks, g.q1-g.q0)*blockWords)
	for q0 := g.q0; q0 < g.q1; q0 += blocks {
		q1 := min(q0+blocks, g.q1)
		for q := q0; q < q1; q++ {
			g.packA(a[(q-q0)*blockWords:], q, i0, i1)
		}
		for j := j0; j < j1; j += g.cachedPanels {
			col := j * g.nr
			cols := min(min(j+g.cachedPanels, j1)*g.nr, g.cols) - col
			for q := q0; q < q1; q++ {
				_, count := g.lanesOf(q)
				g.tiles.mul(g.c[row*g.ldc+g.jc+col:], g.ldc, a[(q-q0)*blockWords:], count*g.mr, g.bPanel(q, j), count*g.nr, count,
					rows, cols, q > 0 || g.acc)
			}
		}
	}
}

// mulFew serves products of few rows, as in decoding. There B is much larger than
// the work on it, so each of its panels is packed into a small buffer, used
// and forgotten; B is read once and nothing of its size is written.
func (g *gemm) mulFew() {
	g.cols = g.n
	g.packRows()
	g.run(g.worth(), ceilDiv(g.n, g.nr), g.stripFn)
}

// packRows packs all of A.
func (g *gemm) packRows() {
	g.aPacked = scratch(&g.aBuf, g.aPanels*g.mr*g.lanesAll)
	for q := range g.blocks {
		g.packA(g.aBlock(q), q, 0, g.aPanels)
	}
}

// aBlock is block q of all rows of A, packed.
func (p *product) aBlock(q int) []float32 { return p.aPacked[q*p.block*p.aPanels*p.mr:] }

// strip computes the columns of one panel of B.
func (g *gemm) strip(j, worker int) {
	b := scratch(&g.workBuf[worker], g.block*g.nr)
	col := j * g.nr
	for q := range g.blocks {
		_, count := g.lanesOf(q)
		g.packB(b, q, j, j+1)
		g.tiles.mul(g.c[col:], g.ldc, g.aBlock(q), count*g.mr, b, 0, count, g.m, min(g.nr, g.n-col), q > 0 || g.acc)
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
