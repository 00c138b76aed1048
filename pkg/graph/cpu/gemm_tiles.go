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
	// Of a tile of C: the rows at most, the words of A that are packed at a time if one
	// block is not more, and the panels of B that these pass before the next block.
	tileRowsMax, tileWords, cachedPanels int
	fewRows                              int  // of A at most where B is packed where it is used; see isFew
	panels                               bool // the kernels pack and multiply many panels at a time
	vector                               bool // a kernel multiplies one row of A by B as it lies
	pairs                                bool // lanes are bf16 pairs
	round                                bool // lanes are fp32 values that were rounded to bf16
}

func newTiles(isa ISA, bf16 bool) tiles {
	if isa != Generic {
		return simdTiles(isa, bf16)
	}
	return tiles{isa: Generic, mr: 4, nr: 4, step: 1, blockLanes: 384, tileRowsMax: 128, tileWords: 1 << 18, cachedPanels: 32, round: bf16}
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
	if t.isa != Generic {
		t.packSIMD(dst, 0, of, x, ld, along, p0, have, k0, kn)
		return
	}
	width := t.width(of)
	packGeneric(dst[:kn*width], part(x, ld, along, p0, have, k0, kn), ld, along, width, have, kn, t.round)
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

// panelArgs are the arguments of a kernel that packs any number of rows or columns,
// as packAll does, in one call.
func (t *tiles) panelArgs(dst []float32, stride int, of side, x []float32, ld int, along bool, p0, have, k0, kn int) packArgs {
	width := t.width(of)
	_ = dst[(have-1)/width*stride+kn*width-1]
	return packArgs{
		src: unsafe.Pointer(&part(x, ld, along, p0, have, k0, kn)[0]), dst: unsafe.Pointer(&dst[0]), ld: int64(ld),
		have: int64(have), lanes: int64(width), k: int64(kn), stride: int64(stride),
	}
}

// packChunk is how many elements along the sum are packed of all panels before the
// next ones, where these lie in other rows: so every row is read in one go.
const packChunk = 64

// packAll packs count rows or columns, as pack does, to panels that begin stride
// floats apart.
func (t *tiles) packAll(dst []float32, stride int, of side, x []float32, ld int, along bool, p0, count, k0, kn int) {
	width, chunk := t.width(of), packChunk
	if t.panels && count > 0 {
		t.packSIMD(dst, stride, of, x, ld, along, p0, count, k0, kn)
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
	if t.isa != Generic {
		t.mulSIMD(c, ldc, a, aStride, b, bStride, lanes, rows, cols, acc)
		return
	}
	for j := 0; j < cols; j += t.nr {
		for i := 0; i < rows; i += t.mr {
			mulGeneric(c[i*ldc+j:], ldc, a[i/t.mr*aStride:][:lanes*t.mr], b[j/t.nr*bStride:][:lanes*t.nr],
				min(t.mr, rows-i), min(t.nr, cols-j), acc)
		}
	}
}

// newTilesArgs are the arguments of a kernel that multiplies panels of A by panels of B.
func newTilesArgs(c []float32, ldc int, a []float32, aStride int, b []float32, bStride, lanes, rows, cols int, acc bool) tilesArgs {
	return tilesArgs{gemmArgs: newGemmArgs(c, ldc, a, b, lanes, rows, cols, acc), aStride: int64(aStride), bStride: int64(bStride)}
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
