package cpu

import "unsafe"

// tiles are the panel shapes and the innermost kernels of one ISA in one
// precision. An operand is packed to panels of mr rows (of A) or nr columns (of
// B), each laid out [lane][mr or nr] along the sum. A lane is one fp32 value, or
// a pair of bf16 values that follow each other along the sum. AMX takes steps of 16
// lanes: of A as [step][mr][16 lanes], of B as [step][nr/16][16 lanes][16 columns].
type tiles struct {
	isa        ISA
	mr, nr     int
	step       int // the lanes of a panel are a multiple of it
	blockLanes int // lanes along the sum per pass over C
	// Of a tile of C: the rows at most, and the panels of B that stay in the L2 cache
	// while those rows pass.
	tileRowsMax, cachedPanels int
	pairs                     bool // lanes are bf16 pairs
	round                     bool // lanes are fp32 values that were rounded to bf16
}

func newTiles(isa ISA, bf16 bool) tiles {
	switch {
	case isa == AMX && bf16:
		return tiles{isa: AMX, mr: 32, nr: 32, step: 16, blockLanes: 192, tileRowsMax: 512, cachedPanels: 24, pairs: true}
	case isa >= AVX512:
		native := bf16 && nativeBF16
		return tiles{isa: AVX512, mr: 14, nr: 32, step: 1, blockLanes: 384, tileRowsMax: 256, cachedPanels: 12, pairs: native, round: bf16 && !native}
	case isa == AVX2:
		return tiles{isa: AVX2, mr: 6, nr: 16, step: 1, blockLanes: 256, tileRowsMax: 144, cachedPanels: 24, round: bf16}
	default:
		return tiles{isa: Generic, mr: 4, nr: 4, step: 1, blockLanes: 384, tileRowsMax: 128, cachedPanels: 32, round: bf16}
	}
}

// lanes is the length in lanes of a panel for a sum over k elements.
func (t *tiles) lanes(k int) int {
	if t.pairs {
		k = (k + 1) / 2
	}
	return ceilDiv(k, t.step) * t.step
}

// perLane is the number of elements in a lane.
func (t *tiles) perLane() int {
	if t.pairs {
		return 2
	}
	return 1
}

// side says which operand a panel is of.
type side bool

const (
	left  side = false // A, in panels of mr rows
	right side = true  // B, in panels of nr columns
)

func (t *tiles) width(of side) int {
	if of == left {
		return t.mr
	}
	return t.nr
}

// pack writes one panel of an operand: the rows p0..p0+have of x if along is true,
// that is if x holds the elements of a sum next to each other, else its columns;
// and of each the kn elements from k0 on. What the panel has beyond them is zero.
func (t *tiles) pack(dst []float32, of side, x []float32, ld int, along bool, p0, have, k0, kn int) {
	if t.isa == AVX2 {
		t.packAVX2(dst, 0, of, x, ld, along, p0, have, k0, kn)
		return
	}
	width := t.width(of)
	dst = dst[:t.lanes(kn)*width]
	x = part(x, ld, along, p0, have, k0, kn)
	if t.isa == Generic {
		packGeneric(dst, x, ld, along, width, have, kn, t.round)
		return
	}
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

// part is x from the first element that is packed on, once it is known to hold the last.
func part(x []float32, ld int, along bool, p0, have, k0, kn int) []float32 {
	if along {
		x = x[p0*ld+k0:]
		_ = x[(have-1)*ld+kn-1]
	} else {
		x = x[k0*ld+p0:]
		_ = x[(kn-1)*ld+have-1]
	}
	return x
}

// packAVX2 writes, as packAll does, any number of rows or columns in one call.
func (t *tiles) packAVX2(dst []float32, stride int, of side, x []float32, ld int, along bool, p0, have, k0, kn int) {
	width := t.width(of)
	_ = dst[(have-1)/width*stride+kn*width-1]
	p := packArgs{
		src: unsafe.Pointer(&part(x, ld, along, p0, have, k0, kn)[0]), dst: unsafe.Pointer(&dst[0]), ld: int64(ld),
		have: int64(have), lanes: int64(width), k: int64(kn), stride: int64(stride),
	}
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

// packChunk is how many elements along the sum are packed of all panels before the
// next ones, where these lie in other rows: so every row is read in one go.
const packChunk = 64

// packAll packs count rows or columns, as pack does, to panels that begin stride
// floats apart.
func (t *tiles) packAll(dst []float32, stride int, of side, x []float32, ld int, along bool, p0, count, k0, kn int) {
	width, chunk := t.width(of), packChunk
	if t.isa == AVX2 && count > 0 {
		t.packAVX2(dst, stride, of, x, ld, along, p0, count, k0, kn)
		return
	}
	if along {
		chunk = kn
	}
	for k := 0; k < kn; k += chunk {
		for p := 0; p < count; p += width {
			t.pack(dst[p/width*stride+t.lanes(k)*width:], of, x, ld, along, p0+p, min(width, count-p), k0+k, min(chunk, kn-k))
		}
	}
}

// mul computes c[rows, cols] = A B, or += where acc is set, from the panels of A
// and of B that hold them, which begin aStride and bStride floats apart and have
// the given number of lanes. Each element is one chain of sums along the lanes.
// Without rows or columns nothing happens.
func (t *tiles) mul(c []float32, ldc int, a []float32, aStride int, b []float32, bStride, lanes, rows, cols int, acc bool) {
	if rows == 0 || cols == 0 {
		return
	}
	_ = c[(rows-1)*ldc+cols-1]
	_, _ = a[(rows-1)/t.mr*aStride+lanes*t.mr-1], b[(cols-1)/t.nr*bStride+lanes*t.nr-1]
	if t.isa == AMX {
		g := tilesArgs{
			gemmArgs: newGemmArgs(c, ldc, a, b, lanes, rows, cols, acc), aStride: int64(aStride), bStride: int64(bStride),
			config: unsafe.Pointer(&tileConfig),
		}
		if rows%32 == 0 && cols%32 == 0 {
			gemmBF16AMX(&g)
		} else {
			mulEdgesAMX(g)
		}
		return
	}
	for j := 0; j < cols; j += t.nr {
		if t.isa == AVX2 {
			gemmF32AVX2(&tilesArgs{
				gemmArgs: newGemmArgs(c[j:], ldc, a, b[j/t.nr*bStride:], lanes, rows, min(t.nr, cols-j), acc),
				aStride:  int64(aStride), bStride: int64(bStride),
			})
			continue
		}
		for i := 0; i < rows; i += t.mr {
			t.mulPanel(c[i*ldc+j:], ldc, a[i/t.mr*aStride:], b[j/t.nr*bStride:], lanes, min(t.mr, rows-i), min(t.nr, cols-j), acc)
		}
	}
}

// mulPanel computes what one panel of A and one of B give.
func (t *tiles) mulPanel(c []float32, ldc int, a, b []float32, lanes, rows, cols int, acc bool) {
	if t.isa == Generic {
		mulGeneric(c, ldc, a[:lanes*t.mr], b[:lanes*t.nr], rows, cols, acc)
		return
	}
	g := newGemmArgs(c, ldc, a, b, lanes, rows, cols, acc)
	switch {
	case t.pairs && rows <= 4:
		gemmBF16Rows4AVX512(&g)
	case t.pairs:
		gemmBF16Rows14AVX512(&g)
	case rows <= 4:
		gemmF32Rows4AVX512(&g)
	default:
		gemmF32Rows14AVX512(&g)
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

func newGemmArgs(c []float32, ldc int, a, b []float32, lanes, rows, cols int, acc bool) gemmArgs {
	g := gemmArgs{
		a: unsafe.Pointer(&a[0]), b: unsafe.Pointer(&b[0]), c: unsafe.Pointer(&c[0]),
		ldc: int64(ldc), k: int64(lanes), m: int64(rows), cols: int64(cols),
	}
	if acc {
		g.acc = 1
	}
	return g
}
