package cpu

import "unsafe"

func simdTiles(isa ISA, bf16 bool) tiles {
	switch {
	case isa == AMX && bf16:
		return tiles{isa: AMX, mr: 32, nr: 32, step: 16, blockLanes: 192, tileRowsMax: 512, tileWords: 1 << 18, cachedPanels: 24,
			pairs: true}
	case isa >= AVX512:
		native := bf16 && nativeBF16
		return tiles{isa: AVX512, mr: 14, nr: 32, step: 1, blockLanes: 384, tileRowsMax: 256, tileWords: 1 << 18, cachedPanels: 12,
			vector: !native, pairs: native, round: bf16 && !native}
	}
	return tiles{isa: AVX2, mr: 6, nr: 16, step: 1, blockLanes: 256, tileRowsMax: 192, tileWords: 1 << 16, cachedPanels: 24, fewRows: 192,
		panels: true, vector: true, round: bf16}
}

// packSIMD is pack, or with AVX2 packAll.
func (t *tiles) packSIMD(dst []float32, stride int, of side, x []float32, ld int, along bool, p0, have, k0, kn int) {
	if t.isa != AVX2 {
		t.packChunks(dst, of, part(x, ld, along, p0, have, k0, kn), ld, along, have, kn)
		return
	}
	p := t.panelArgs(dst, stride, of, x, ld, along, p0, have, k0, kn)
	switch {
	case along && t.round:
		packRowsRoundAVX2(&p)
	case along:
		packRowsAVX2(&p)
	case t.round:
		packColsRoundAVX2(&p)
	default:
		packColsAVX2(&p)
	}
}

// packChunks packs one panel, for AVX-512 and AMX, from up to 16 rows or columns at a
// time. x begins at its first element.
func (t *tiles) packChunks(dst []float32, of side, x []float32, ld int, along bool, have, kn int) {
	width := t.width(of)
	dst = dst[:t.lanes(kn)*width]
	const chunk = 16
	for h := 0; h < width; h += chunk {
		p := packArgs{
			src: unsafe.Pointer(&x[0]), dst: unsafe.Pointer(&dst[h]), ld: int64(ld),
			have: int64(min(chunk, max(0, have-h))), lanes: int64(min(chunk, width-h)), k: int64(kn), stride: int64(width),
		}
		switch {
		case p.have == 0:
		case along:
			p.src = unsafe.Pointer(&x[h*ld])
		default:
			p.src = unsafe.Pointer(&x[h])
		}
		switch {
		case t.isa == AMX:
			p.dst, p.stride = unsafe.Pointer(&dst[h*t.step]), int64(width*t.step)
			switch {
			case of == left && along:
				packTileRowsAAMX(&p)
			case of == left:
				packTileColsAAMX(&p)
			case along:
				packTileRowsBAMX(&p)
			default:
				packTileColsBAMX(&p)
			}
		case along && t.pairs:
			packRowsBF16AVX512(&p)
		case along && t.round:
			packRowsRoundAVX512(&p)
		case along:
			packRowsAVX512(&p)
		case t.pairs:
			packColsBF16AVX512(&p)
		case t.round:
			packColsRoundAVX512(&p)
		default:
			packColsAVX512(&p)
		}
	}
}

// mulSIMD is mul, for some rows and columns.
func (t *tiles) mulSIMD(c []float32, ldc int, a []float32, aStride int, b []float32, bStride, lanes, rows, cols int, acc bool) {
	if t.isa == AMX {
		g := newTilesArgs(c, ldc, a, aStride, b, bStride, lanes, rows, cols, acc)
		g.config = unsafe.Pointer(&tileConfig)
		if rows%32 == 0 && cols%32 == 0 {
			gemmBF16AMX(&g)
		} else {
			mulEdgesAMX(g)
		}
		return
	}
	for j := 0; j < cols; j += t.nr {
		if t.isa == AVX2 {
			g := newTilesArgs(c[j:], ldc, a, aStride, b[j/t.nr*bStride:], bStride, lanes, rows, min(t.nr, cols-j), acc)
			gemmF32AVX2(&g)
			continue
		}
		for i := 0; i < rows; i += t.mr {
			g := newGemmArgs(c[i*ldc+j:], ldc, a[i/t.mr*aStride:], b[j/t.nr*bStride:], lanes, min(t.mr, rows-i), min(t.nr, cols-j), acc)
			switch {
			case t.pairs && g.m <= 4:
				gemmBF16Rows4AVX512(&g)
			case t.pairs:
				gemmBF16Rows14AVX512(&g)
			case g.m <= 4:
				gemmF32Rows4AVX512(&g)
			default:
				gemmF32Rows14AVX512(&g)
			}
		}
	}
}

// runGemv is for AVX-512 too: its time is that of reading B.
func runGemv(round bool, v *gemvArgs) {
	if round {
		gemvRoundAVX2(v)
	} else {
		gemvAVX2(v)
	}
}

// tileConfig is what LDTILECFG reads: palette 1, and eight registers of 16 rows of
// 64 bytes.
var tileConfig = func() (config [64]byte) {
	config[0] = 1
	for r := range 8 {
		config[16+2*r], config[48+r] = 64, 16
	}
	return config
}()

// mulEdgesAMX is for results that are not whole blocks of 32 x 32: those at the
// edges are computed in memory of this function, which others need not clear.
//
//go:noinline
func mulEdgesAMX(g tilesArgs) {
	var edge [32 * 32]float32
	g.edge = unsafe.Pointer(&edge)
	gemmBF16AMX(&g)
}

// peakSIMD does some operations in registers, as many steps as g.k says, and says how many.
func (t *tiles) peakSIMD(g gemmArgs) (operations int64) {
	switch {
	case t.isa == AMX:
		peakBF16AMX(&tilesArgs{gemmArgs: g, config: unsafe.Pointer(&tileConfig)})
		return g.k * 4 * 2 * 16 * 16 * 32
	case t.isa == AVX512 && t.pairs:
		peakBF16AVX512(&g)
		return g.k * 16 * 2 * 32
	case t.isa == AVX512:
		peakF32AVX512(&g)
		return g.k * 16 * 2 * 16
	}
	peakF32AVX2(&g)
	return g.k * 12 * 2 * 8
}
