package cpu

import "unsafe"

// tiles are the panel shapes and the innermost kernels of one ISA in one
// precision. An operand is packed to panels of mr rows (of A) or nr columns (of
// B), each laid out [lane][mr or nr] along the sum. A lane is one fp32 value, or
// a pair of bf16 values that follow each other along the sum.
type tiles struct {
	isa    ISA
	mr, nr int
	pairs  bool // lanes are bf16 pairs
	round  bool // lanes are fp32 values that were rounded to bf16
}

func newTiles(isa ISA, bf16 bool) tiles {
	switch isa {
	case AVX512:
		native := bf16 && nativeBF16
		return tiles{isa: isa, mr: 14, nr: 32, pairs: native, round: bf16 && !native}
	case AVX2:
		return tiles{isa: isa, mr: 6, nr: 16, round: bf16}
	default:
		return tiles{isa: Generic, mr: 4, nr: 4, round: bf16}
	}
}

// lanes is the length in lanes of a sum over k elements.
func (t *tiles) lanes(k int) int {
	if t.pairs {
		return (k + 1) / 2
	}
	return k
}

// perLane is the number of elements in a lane.
func (t *tiles) perLane() int {
	if t.pairs {
		return 2
	}
	return 1
}

// pack writes one panel of the given width (mr or nr): the rows p0..p0+have of x
// if along is true, that is if x holds the elements of a sum next to each other,
// else its columns; and of each the kn elements from k0 on. What the panel has
// beyond them is zero.
func (t *tiles) pack(dst, x []float32, ld int, along bool, width, p0, have, k0, kn int) {
	dst = dst[:t.lanes(kn)*width]
	if along {
		x = x[p0*ld+k0:]
		_ = x[(have-1)*ld+kn-1]
	} else {
		x = x[k0*ld+p0:]
		_ = x[(kn-1)*ld+have-1]
	}
	var chunk int
	switch t.isa {
	case AVX512:
		chunk = 16
	case AVX2:
		chunk = 8
	default:
		packGeneric(dst, x, ld, along, width, have, kn, t.round)
		return
	}
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
		case t.isa == AVX2 && along && t.round:
			packRowsRoundAVX2(&p)
		case t.isa == AVX2 && along:
			packRowsAVX2(&p)
		case t.isa == AVX2 && t.round:
			packColsRoundAVX2(&p)
		case t.isa == AVX2:
			packColsAVX2(&p)
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

// mul computes one tile from a panel of A and a panel of B with the given number
// of lanes: c[rows, cols] = A B, or += where acc is set. Each element is one
// chain of multiply-adds along the sum.
func (t *tiles) mul(c []float32, ldc int, a, b []float32, lanes, rows, cols int, acc bool) {
	_ = c[(rows-1)*ldc+cols-1]
	if t.isa == Generic {
		mulGeneric(c, ldc, a[:lanes*4], b[:lanes*4], rows, cols, acc)
		return
	}
	_, _ = a[lanes*t.mr-1], b[lanes*t.nr-1]
	g := gemmArgs{
		a: unsafe.Pointer(&a[0]), b: unsafe.Pointer(&b[0]), c: unsafe.Pointer(&c[0]),
		ldc: int64(ldc), k: int64(lanes), m: int64(rows), cols: int64(cols),
	}
	if acc {
		g.acc = 1
	}
	switch {
	case t.isa == AVX2 && rows <= 2:
		gemmF32Rows2AVX2(&g)
	case t.isa == AVX2:
		gemmF32Rows6AVX2(&g)
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
