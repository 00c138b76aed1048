package cpu

// The block sizes of a product, as tried against OpenBLAS: a block of B
// (blockLanes x a few hundred columns) stays in the L2 cache while panels of A
// pass through L1.
const (
	blockLanes   = 384  // lanes along the sum per pass over C; a multiple of 16
	packedBlocks = 4    // blocks along the sum that are packed at a time
	packedRows   = 4088 // rows of A packed at a time, rounded to whole panels
	packedCols   = 4096 // columns of B packed at a time
	packItem     = 4    // panels packed per item of the pool
	fewPanels    = 4    // up to so many panels of A, B is packed where it is used
	serialWork   = 1 << 17
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
	pool     *Pool
	fp32     tiles
	bf16     tiles
	nb, mb   int // panels of B and of A in a tile of C, at most
	packFn   func(item, worker int)
	tileFn   func(item, worker int)
	stripFn  func(item, worker int)
	aBuf     []float32
	bBuf     []float32
	stripBuf [][]float32 // per worker
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

	lanesAll, block int // lanes of the whole sum, and of a block of it

	// What is packed at the moment: the rows from ic on, the columns from jc on,
	// and the blocks q0..q1 of the sum.
	ic, jc, q0, q1     int
	rows, cols         int
	aPanels, bPanels   int
	aPacked, bPacked   []float32
	aItems             int // panel blocks of A still to be packed
	tileRows, tileCols int // panels in a tile of C
	tilesDown          int
}

func (g *gemm) init(pool *Pool, isa ISA) {
	g.pool = pool
	g.fp32, g.bf16 = newTiles(isa, false), newTiles(isa, true)
	switch isa {
	case AVX512:
		g.nb, g.mb = 12, 74
	case AVX2:
		g.nb, g.mb = 24, 86
	default:
		g.nb, g.mb = 32, 64
	}
	g.packFn, g.tileFn, g.stripFn = g.packItem, g.tile, g.strip
	g.stripBuf = make([][]float32, pool.Threads())
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
	blocks := ceilDiv(p.lanesAll, blockLanes)
	p.block = (ceilDiv(p.lanesAll, blocks) + 15) &^ 15
	blocks = ceilDiv(p.lanesAll, p.block)
	g.product = p

	if ceilDiv(m, p.mr) <= fewPanels {
		g.mulFew(blocks)
	} else {
		g.mulMany(blocks)
	}
	g.product = product{}
}

// run runs items on the pool, unless the product is so small that waking others
// would take longer than it.
func (g *gemm) run(n int, fn func(item, worker int)) {
	if g.m*g.n*g.k >= serialWork {
		g.pool.Run(n, fn)
		return
	}
	for i := range n {
		fn(i, 0)
	}
}

// mulMany packs large parts of both operands and then computes tiles of C.
func (g *gemm) mulMany(blocks int) {
	rowsMax := packedRows / g.mr * g.mr
	for g.jc = 0; g.jc < g.n; g.jc += packedCols {
		g.cols = min(packedCols, g.n-g.jc)
		g.bPanels = ceilDiv(g.cols, g.nr)
		for g.q0 = 0; g.q0 < blocks; g.q0 += packedBlocks {
			g.q1 = min(g.q0+packedBlocks, blocks)
			lanes := min(g.q1*g.block, g.lanesAll) - g.q0*g.block
			g.bPacked = scratch(&g.bBuf, g.bPanels*g.nr*lanes)
			bItems := g.bPanels * (g.q1 - g.q0)
			for g.ic = 0; g.ic < g.m; g.ic += rowsMax {
				g.rows = min(rowsMax, g.m-g.ic)
				g.aPanels = ceilDiv(g.rows, g.mr)
				g.aPacked = scratch(&g.aBuf, g.aPanels*g.mr*lanes)
				g.aItems = g.aPanels * (g.q1 - g.q0)
				if g.jc > 0 && g.m <= rowsMax && blocks <= packedBlocks {
					g.aItems = 0 // all of A is there since the first columns
				}
				if g.ic > 0 {
					bItems = 0
				}
				g.run(ceilDiv(g.aItems+bItems, packItem), g.packFn)
				g.cut()
				g.run(g.tilesDown*ceilDiv(g.bPanels, g.tileCols), g.tileFn)
			}
		}
	}
}

// cut chooses the size of the tiles: as large as the caches allow, but enough of
// them for all threads to finish together.
func (g *gemm) cut() {
	mb, nb := min(g.mb, g.aPanels), min(g.nb, g.bPanels)
	for nb > 1 && ceilDiv(g.aPanels, mb)*ceilDiv(g.bPanels, nb) < 4*g.pool.Threads() {
		if mb*g.mr > 2*nb*g.nr {
			mb = (mb + 1) / 2
		} else {
			nb = (nb + 1) / 2
		}
	}
	g.tileRows, g.tileCols = mb, nb
	g.tilesDown = ceilDiv(g.aPanels, mb)
}

// lanesOf returns where block q of the sum begins and how long it is, in lanes.
func (p *product) lanesOf(q int) (first, count int) {
	first = q * p.block
	return first, min(p.block, p.lanesAll-first)
}

// aPanel and bPanel find a panel of block q, counted from the first packed one.
func (p *product) aPanel(q, i int) []float32 {
	first, count := p.lanesOf(q)
	return p.aPacked[((first-p.q0*p.block)*p.aPanels+i*count)*p.mr:]
}

func (p *product) bPanel(q, j int) []float32 {
	first, count := p.lanesOf(q)
	return p.bPacked[((first-p.q0*p.block)*p.bPanels+j*count)*p.nr:]
}

func (p *product) packA(dst []float32, q, i int) {
	first, count := p.lanesOf(q)
	k0 := first * p.perLane()
	row := p.ic + i*p.mr
	p.pack(dst, p.a.Data, p.a.LD, !p.a.Trans, p.mr, row, min(p.mr, p.m-row), k0, min(count*p.perLane(), p.k-k0))
}

func (p *product) packB(dst []float32, q, j int) {
	first, count := p.lanesOf(q)
	k0 := first * p.perLane()
	col := p.jc + j*p.nr
	p.pack(dst, p.b.Data, p.b.LD, p.b.Trans, p.nr, col, min(p.nr, p.n-col), k0, min(count*p.perLane(), p.k-k0))
}

func (g *gemm) packItem(item, _ int) {
	bItems := g.bPanels * (g.q1 - g.q0)
	for i := item * packItem; i < (item+1)*packItem; i++ {
		if i < g.aItems {
			q, panel := g.q0+i/g.aPanels, i%g.aPanels
			g.packA(g.aPanel(q, panel), q, panel)
		} else if j := i - g.aItems; j < bItems {
			q, panel := g.q0+j/g.bPanels, j%g.bPanels
			g.packB(g.bPanel(q, panel), q, panel)
		}
	}
}

// tile computes one tile of C from packed panels: for every block of the sum,
// each panel of A meets all panels of B of the tile.
func (g *gemm) tile(item, _ int) {
	i0, j0 := item%g.tilesDown*g.tileRows, item/g.tilesDown*g.tileCols
	i1, j1 := min(i0+g.tileRows, g.aPanels), min(j0+g.tileCols, g.bPanels)
	for q := g.q0; q < g.q1; q++ {
		_, count := g.lanesOf(q)
		for i := i0; i < i1; i++ {
			a := g.aPanel(q, i)
			row := g.ic + i*g.mr
			c := g.c[row*g.ldc+g.jc:]
			for j := j0; j < j1; j++ {
				g.tiles.mul(c[j*g.nr:], g.ldc, a, g.bPanel(q, j), count,
					min(g.mr, g.m-row), min(g.nr, g.cols-j*g.nr), q > 0 || g.acc)
			}
		}
	}
}

// mulFew serves products of few rows, as in decoding. There B is much larger than
// the work on it, so each of its panels is packed into a small buffer, used
// and forgotten; B is read once and nothing of its size is written.
func (g *gemm) mulFew(blocks int) {
	g.q0, g.q1 = 0, blocks
	g.aPanels = ceilDiv(g.m, g.mr)
	g.bPanels = ceilDiv(g.n, g.nr)
	g.aPacked = scratch(&g.aBuf, g.aPanels*g.mr*g.lanesAll)
	for q := range blocks {
		for i := range g.aPanels {
			g.packA(g.aPanel(q, i), q, i)
		}
	}
	g.run(g.bPanels, g.stripFn)
}

// strip computes the columns of one panel of B.
func (g *gemm) strip(j, worker int) {
	b := scratch(&g.stripBuf[worker], g.block*g.nr)
	col := j * g.nr
	for q := range g.q1 {
		_, count := g.lanesOf(q)
		g.packB(b, q, j)
		for i := range g.aPanels {
			row := i * g.mr
			g.tiles.mul(g.c[row*g.ldc+col:], g.ldc, g.aPanel(q, i), b, count,
				min(g.mr, g.m-row), min(g.nr, g.n-col), q > 0 || g.acc)
		}
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
