package cpu

import "unsafe"

const (
	vectorStrip = 16 // columns that the kernel computes at a time
	vectorCols  = 64 // of an item of the pool, where there are enough for all threads
)

// isVector says whether the product is one of a single row by a matrix whose rows lie along the sum, as a Linear layer's weights do.
// The kernel takes those as they lie, and its sums are those of the tiles. For two rows in bf16 and for three in fp32, packing
// was as fast.
func (g *gemm) isVector() bool {
	return g.m == 1 && g.b.Trans && g.b.Half == nil && g.vector
}

// mulVector computes such a product.
func (g *gemm) mulVector() {
	g.q0, g.q1 = 0, g.blocks
	g.packRows()
	g.itemStrips = max(1, min(vectorCols/vectorStrip, g.n/vectorStrip/(4*g.pool.Threads())))
	g.run(g.worth(), ceilDiv(g.n, g.itemStrips*vectorStrip), g.vectorFn)
}

// vectorItem computes some strips of columns: each with all blocks of the sum, so that rows of B are read from their beginning to
// their end.
func (g *gemm) vectorItem(item, _ int) {
	from := item * g.itemStrips * vectorStrip
	to := min(from+g.itemStrips*vectorStrip, g.n)
	_, _ = g.c[to-1], g.b.Data[(to-1)*g.b.LD+g.k-1]
	acc := g.begin(g.c[from:], g.ldc, 0, from, 1, to-from)
	for col := from; col < to; col += vectorStrip {
		for q := range g.blocks {
			first, count := g.lanesOf(q)
			v := gemvArgs{
				a: unsafe.Pointer(&g.aBlock(q)[:count*g.mr][0]), b: unsafe.Pointer(&g.b.Data[col*g.b.LD+first]), c: unsafe.Pointer(&g.c[col]),
				k: int64(min(count, g.k-first)), cols: int64(min(vectorStrip, to-col)),
				mr: int64(g.mr), ldb: int64(g.b.LD),
			}
			if q > 0 || acc {
				v.acc = 1
			}
			runGemv(g.round, &v)
		}
	}
}
