package cpu

// The block sizes of a product, as tried against OpenBLAS: a block of B
// (blockLanes x a few hundred columns) stays in the L2 cache while panels of A
// pass through L1.
const (
	packedWords   = 4 << 20 // of B packed at a time, at most
	rowWords      = 2048    // of B packed at a time for each row of A, at most, but a quarter of packedWords in any case
	packedCols    = 1024    // columns of B packed at a time, at least
	packItem      = 4       // panels packed per item of the pool
	packItemHalf  = 16      // the same of an operand in bf16, whose pieces of rows are widened before
	serialWork    = 1 << 17 // multiply-adds that are not worth another thread
	serialPacking = 1 << 14 // words of B that are not worth one
)

// Mat is an operand: a row-major matrix, or a part of one, whose rows begin LD
// elements apart. With Trans set, the operand is the transpose of what is stored.
// Half holds it instead of Data where its numbers are bf16.
type Mat struct {
	Data  []float32
	Half  []uint16
	LD    int
	Trans bool
}

func (x Mat) floats() floats { return floats{x.Data, x.Half} }

// from returns what is stored from row r on.
func (x Mat) from(r int) Mat {
	part := x.floats().from(r * x.LD)
	x.Data, x.Half = part.full, part.half
	return x
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
	k.gemm.mul(product{c: c, ldc: ldc, a: a, b: b, m: m, n: n, k: kk, acc: acc}, bf16)
}

// mulFrom computes c[m,n] = start[m,n] + a[m,k] b[k,n], as Mul does, for numbers
// of either type: every sum begins with the element of start, if there is one, and
// is rounded at its end where c is bf16. A start whose LD is 0 is one row for all.
// start may lie where c does.
func (k *Kernels) mulFrom(c floats, ldc int, start, a, b Mat, m, n, kk int, bf16 bool) {
	k.gemm.mul(product{c: c.full, half: c.half, ldc: ldc, start: start, a: a, b: b, m: m, n: n, k: kk}, bf16)
}

// gemm holds a product in progress, and the buffers that products pack into.
// The functions that the pool runs are built once, so that a product allocates
// nothing.
type gemm struct {
	pool        *Pool
	vec         ISA
	fp32        tiles
	bf16        tiles
	packedWords int
	packFn      func(item, worker int)
	tileFn      func(item, worker int)
	rowsFn      func(item, worker int)
	stripFn     func(item, worker int)
	vectorFn    func(item, worker int)
	aBuf        []float32
	bBuf        []float32
	cBuf        []float32   // a result that is rounded, if not by tiles
	workBuf     [][]float32 // per worker: packed operands
	wideBuf     [][]float32 // and operands in bf16 on their way there
	tileBuf     [][]float32 // and a tile of C that is rounded
	product
}

// product is one call of Mul, cut into blocks of lanes.
type product struct {
	*tiles
	c       []float32
	half    []uint16 // C is this, and rounded, where it is not nil
	ldc     int
	start   Mat // what the sums begin with
	a, b    Mat
	m, n, k int
	acc     bool // they begin with what is in c

	lanesAll, block, blocks int // lanes of the whole sum, of a block of it, and its blocks
	aPanels                 int
	few                     bool      // few rows: B is packed where it is used
	aPacked                 []float32 // and before it the blocks q0..q1 of A

	// What is packed of B at the moment: the columns from jc on, and the blocks
	// q0..q1 of the sum.
	jc, q0, q1, cols int
	bPanels          int
	bPacked          []float32
	itemPanels       int // packed per item of the pool

	tileRows, tileCols int // panels in a tile of C
	tilesDown          int

	itemStrips int // strips of columns in an item of mulVector
}

func (g *gemm) init(pool *Pool, isa, vec ISA) {
	g.pool, g.vec, g.packedWords = pool, vec, packedWords
	g.fp32, g.bf16 = newTiles(isa, false), newTiles(isa, true)
	g.packFn, g.tileFn, g.rowsFn, g.stripFn, g.vectorFn = g.packItem, g.tile, g.packRowsItem, g.strip, g.vectorItem
	g.workBuf, g.wideBuf, g.tileBuf = make([][]float32, pool.Threads()), make([][]float32, pool.Threads()), make([][]float32, pool.Threads())
}

func (g *gemm) mul(p product, bf16 bool) {
	if p.m == 0 || p.n == 0 {
		return
	}
	last := (p.m-1)*p.ldc + p.n - 1
	if p.half != nil {
		_ = p.half[last]
	} else if _ = p.c[last]; len(p.start.Data) > 0 && &p.start.Data[0] == &p.c[0] {
		p.start, p.acc = Mat{}, true
	}
	p.tiles = &g.fp32
	if bf16 {
		p.tiles = &g.bf16
	}
	p.cut(g.pool.Threads())
	if p.half != nil && p.apart(g.packedWords) {
		half, ldc := p.half, p.ldc
		p.c, p.ldc, p.half = scratch(&g.cBuf, p.m*p.n), p.n, nil
		g.multiply(p)
		for r := range p.m {
			narrow(g.vec, half[r*ldc:][:p.n], p.c[r*p.n:])
		}
		return
	}
	g.multiply(p)
}

// multiply computes a product that has been cut.
func (g *gemm) multiply(p product) {
	g.product = p
	switch {
	case g.k == 0:
		if !g.begin(g.c, g.ldc, 0, 0, g.m, g.n) {
			for i := range g.m {
				clear(g.c[i*g.ldc:][:g.n])
			}
		}
	case g.isVector():
		g.mulVector()
	case g.few:
		g.mulFew()
	default:
		g.mulMany()
	}
	g.product = product{}
}

// apart says whether a result that is rounded is computed as a whole before: few rows, and where the sum is so long that B would
// be packed a few columns at a time, since each tile is rounded when its sum is complete.
func (p *product) apart(words int) bool {
	return p.few || p.k == 0 || p.m*p.n <= words/4 && words/p.lanesAll < min(p.n, packedCols)
}

// cut counts the panels of A, cuts the sum into blocks, and chooses how so many threads go about it.
func (p *product) cut(threads int) {
	p.aPanels = ceilDiv(p.m, p.mr)
	p.few = p.isFew(threads)
	if p.k == 0 {
		return
	}
	p.lanesAll = p.lanes(p.k)
	p.block = (ceilDiv(p.lanesAll, ceilDiv(p.lanesAll, p.blockLanes)) + 15) &^ 15
	p.blocks = ceilDiv(p.lanesAll, p.block)
}

// reserve makes room for what a product packs of B, so that the memory of smaller ones before it is not left behind when it runs.
func (g *gemm) reserve(m, n, k int, bf16, half bool) {
	p := product{tiles: &g.fp32, m: m, n: n, k: k}
	if bf16 {
		p.tiles = &g.bf16
	}
	p.cut(g.pool.Threads())
	if half && p.apart(g.packedWords) {
		half = false
		scratch(&g.cBuf, m*n)
	}
	if p.few || k == 0 {
		return
	}
	cols, blocks := p.parts(g.packedWords, half)
	scratch(&g.bBuf, ceilDiv(cols, p.nr)*p.nr*min(blocks*p.block, p.lanesAll))
}

// parts returns how many columns of B, and blocks of the sum, are packed at a time.
func (p *product) parts(words int, half bool) (cols, blocks int) {
	if half { // what is rounded needs the whole sum at a time
		return min(p.n, max(p.nr, words/p.lanesAll/p.nr*p.nr)), p.blocks
	}
	words = min(words, max(words/4, p.m*rowWords))
	cols = min(p.n, max(packedCols, words/p.lanesAll/p.nr*p.nr))
	return cols, max(1, words/(cols*p.block))
}

// begin puts into c what the sums of the elements from a row and a column of C on begin with, and says whether they
// begin with what c then holds; they begin with zero otherwise.
func (g *gemm) begin(c []float32, ldc, row, col, rows, cols int) bool {
	if g.start.Data == nil && g.start.Half == nil {
		return g.acc
	}
	for r := range rows {
		to, at := c[r*ldc:][:cols], (row+r)*g.start.LD+col
		if g.start.Half != nil {
			widen(g.vec, to, g.start.Half[at:])
		} else {
			copy(to, g.start.Data[at:][:cols])
		}
	}
	return true
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
	colsMax, blocksMax := g.parts(g.packedWords, g.half != nil)
	g.cutTiles(colsMax)
	if g.itemPanels = packItem; g.b.Half != nil {
		g.itemPanels = packItemHalf
	}
	for g.jc = 0; g.jc < g.n; g.jc += colsMax {
		g.cols = min(colsMax, g.n-g.jc)
		g.bPanels = ceilDiv(g.cols, g.nr)
		for g.q0 = 0; g.q0 < g.blocks; g.q0 += blocksMax {
			g.q1 = min(g.q0+blocksMax, g.blocks)
			words := g.bPanels * g.nr * (min(g.q1*g.block, g.lanesAll) - g.q0*g.block)
			g.bPacked = scratch(&g.bBuf, words)
			g.run(words >= serialPacking, ceilDiv(g.bPanels, g.itemPanels)*(g.q1-g.q0), g.packFn)
			g.run(g.worth(), g.tilesDown*ceilDiv(g.bPanels, g.tileCols), g.tileFn)
		}
	}
}

// cutTiles chooses the size of the tiles: as large as the caches allow, but as many of them,
// all alike, for each thread. Tiles beside each other pack the same rows, so columns are
// cut only where there are few rows.
func (g *gemm) cutTiles(cols int) {
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
func (g *gemm) packA(dst []float32, q, from, to, worker int) {
	first, count := g.lanesOf(q)
	k0 := first * g.perLane()
	g.packFloats(&g.wideBuf[worker], g.vec, dst, count*g.mr, left, g.a.floats(), g.a.LD, !g.a.Trans, from*g.mr, min(to*g.mr, g.m)-from*g.mr,
		k0, min(count*g.perLane(), g.k-k0))
}

func (g *gemm) packB(dst []float32, q, from, to, worker int) {
	first, count := g.lanesOf(q)
	k0 := first * g.perLane()
	col := from * g.nr
	g.packFloats(&g.wideBuf[worker], g.vec, dst, count*g.nr, right, g.b.floats(), g.b.LD, g.b.Trans, g.jc+col, min(to*g.nr, g.cols)-col,
		k0, min(count*g.perLane(), g.k-k0))
}

func (g *gemm) packItem(item, worker int) {
	// What lies together in memory, the blocks of a row, comes one after the other.
	blocks := g.q1 - g.q0
	q, from := g.q0+item%blocks, item/blocks*g.itemPanels
	g.packB(g.bPanel(q, from), q, from, min(from+g.itemPanels, g.bPanels), worker)
}

// tile computes one tile of C. As many blocks of the sum as fit are packed of its
// rows; then, for as many columns of B as stay in the L2 cache, each block is added.
func (g *gemm) tile(item, worker int) {
	i0, j0 := item%g.tilesDown*g.tileRows, item/g.tilesDown*g.tileCols
	i1, j1 := min(i0+g.tileRows, g.aPanels), min(j0+g.tileCols, g.bPanels)
	row := i0 * g.mr
	rows := min(i1*g.mr, g.m) - row
	first := j0 * g.nr
	width := min(j1*g.nr, g.cols) - first
	c, ldc := g.c, g.ldc
	if g.half != nil {
		c, ldc = scratch(&g.tileBuf[worker], rows*width), width
	} else {
		c = c[row*ldc+g.jc+first:]
	}
	acc := g.q0 > 0 || g.begin(c, ldc, row, g.jc+first, rows, width)
	blockWords := g.tileRows * g.mr * g.block
	blocks := max(1, g.tileWords/blockWords)
	a := scratch(&g.workBuf[worker], min(blocks, g.q1-g.q0)*blockWords)
	for q0 := g.q0; q0 < g.q1; q0 += blocks {
		q1 := min(q0+blocks, g.q1)
		for q := q0; q < q1; q++ {
			g.packA(a[(q-q0)*blockWords:], q, i0, i1, worker)
		}
		for j := j0; j < j1; j += g.cachedPanels {
			col := j * g.nr
			cols := min(min(j+g.cachedPanels, j1)*g.nr, g.cols) - col
			for q := q0; q < q1; q++ {
				_, count := g.lanesOf(q)
				g.tiles.mul(c[col-first:], ldc, a[(q-q0)*blockWords:], count*g.mr, g.bPanel(q, j), count*g.nr, count,
					rows, cols, q > 0 || acc)
			}
		}
	}
	if g.half != nil {
		for r := range rows {
			narrow(g.vec, g.half[(row+r)*g.ldc+g.jc+first:][:width], c[r*width:])
		}
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
