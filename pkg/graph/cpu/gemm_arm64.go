package cpu

// simdTiles has block sizes after AVX2's, for caches of the same sizes.
func simdTiles(isa ISA, bf16 bool) tiles {
	return tiles{isa: isa, mr: 12, nr: 8, step: 1, blockLanes: 256, tileRowsMax: 192, tileWords: 1 << 16, cachedPanels: 48,
		panels: true, vector: true, round: bf16}
}

// packSIMD is packAll.
func (t *tiles) packSIMD(dst []float32, stride int, of side, x []float32, ld int, along bool, p0, have, k0, kn int) {
	p := t.panelArgs(dst, stride, of, x, ld, along, p0, have, k0, kn)
	switch {
	case along && t.round:
		packRowsRoundNEON(&p)
	case along:
		packRowsNEON(&p)
	case t.round:
		packColsRoundNEON(&p)
	default:
		packColsNEON(&p)
	}
}

// mulSIMD is mul, for some rows and columns.
func (t *tiles) mulSIMD(c []float32, ldc int, a []float32, aStride int, b []float32, bStride, lanes, rows, cols int, acc bool) {
	for j := 0; j < cols; j += t.nr {
		g := newTilesArgs(c[j:], ldc, a, aStride, b[j/t.nr*bStride:], bStride, lanes, rows, min(t.nr, cols-j), acc)
		gemmF32NEON(&g)
	}
}

func runGemv(round bool, v *gemvArgs) {
	if round {
		gemvRoundNEON(v)
	} else {
		gemvNEON(v)
	}
}

// peakSIMD does some operations in registers, as many steps as g.k says, and says how many.
func (t *tiles) peakSIMD(g gemmArgs) (operations int64) {
	peakF32NEON(&g)
	return g.k * 24 * 2 * 4
}
