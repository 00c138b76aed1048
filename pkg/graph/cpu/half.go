package cpu

import (
	"math"
	"unsafe"
)

// floats are numbers in memory: fp32, or bf16 where half is not nil.
type floats struct {
	full []float32
	half []uint16
}

// from returns the numbers from the i-th on.
func (x floats) from(i int) floats {
	if x.half != nil {
		return floats{half: x.half[i:]}
	}
	return floats{full: x.full[i:]}
}

// Widen computes dst = src for vectors of the length of dst, src being bf16
// numbers.
func (k *Kernels) Widen(dst []float32, src []uint16) { widen(k.vec, dst, src) }

func widen(vec ISA, dst []float32, src []uint16) {
	src = src[:len(dst)]
	if vec != Generic {
		runVec(vec, opWiden, &vecArgs{a: unsafe.Pointer(unsafe.SliceData(src)), b: ptr(dst), n: int64(len(dst))})
		return
	}
	for i, v := range src {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

// Narrow rounds src to bf16 numbers (nearest, ties to even; a NaN stays one), for
// vectors of the length of dst.
func (k *Kernels) Narrow(dst []uint16, src []float32) { narrow(k.vec, dst, src) }

func narrow(vec ISA, dst []uint16, src []float32) {
	src = src[:len(dst)]
	if vec != Generic {
		runVec(vec, opNarrow, &vecArgs{a: ptr(src), b: unsafe.Pointer(unsafe.SliceData(dst)), n: int64(len(dst))})
		return
	}
	for i, v := range src {
		dst[i] = uint16(math.Float32bits(roundBF16(v)) >> 16)
	}
}

// wideRows is how many rows of a bf16 operand whose columns are packed are widened
// at a time; a multiple of what a packed panel's lanes are.
const wideRows = 32

// packFloats is packAll for operands of either type: pieces of one in bf16 are
// widened to buf, where they stay in the L1 cache until they are packed.
func (t *tiles) packFloats(buf *[]float32, vec ISA, dst []float32, stride int, of side, x floats, ld int, along bool, p0, count, k0, kn int) {
	if x.half == nil {
		t.packAll(dst, stride, of, x.full, ld, along, p0, count, k0, kn)
		return
	}
	width := t.width(of)
	if along {
		wide := scratch(buf, width*kn)
		for p := 0; p < count; p += width {
			have := min(width, count-p)
			for r := range have {
				widen(vec, wide[r*kn:][:kn], x.half[(p0+p+r)*ld+k0:])
			}
			t.packAll(dst[p/width*stride:], stride, of, wide, kn, true, 0, have, 0, kn)
		}
		return
	}
	wide := scratch(buf, wideRows*count)
	for k := 0; k < kn; k += wideRows {
		n := min(wideRows, kn-k)
		for l := range n {
			widen(vec, wide[l*count:][:count], x.half[(k0+k+l)*ld+p0:])
		}
		t.packAll(dst[t.lanes(k)*width:], stride, of, wide, count, false, 0, count, 0, n)
	}
}
