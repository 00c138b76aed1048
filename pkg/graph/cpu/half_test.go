package cpu

import (
	"math"
	"testing"
)

func TestWidenAndNarrow(t *testing.T) {
	values := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 1.00390625, 1.01171875, 1.0039063, 3e38, 3.4e38, -3.4e38, 1e-40, 1e-45,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0xff800001), math.Float32frombits(0x7fffffff)}
	values = append(values, normals(3, 84)...)
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		for n := range len(values) + 1 {
			x := values[len(values)-n:]
			half, back := make([]uint16, n+2), make([]float32, n+2)
			half[0], half[n+1], back[0], back[n+1] = 7, 7, 7, 7
			k.Narrow(half[1:n+1], x)
			k.Widen(back[1:n+1], half[1:])
			for i, v := range x {
				if want := roundBF16(v); math.Float32bits(back[i+1]) != math.Float32bits(want) {
					t.Fatalf("%d numbers: %v (%#x) becomes %v, want %v", n, v, math.Float32bits(v), back[i+1], want)
				}
			}
			if half[0] != 7 || half[n+1] != 7 || back[0] != 7 || back[n+1] != 7 {
				t.Fatalf("%d numbers: wrote outside", n)
			}
		}
	})
}

// halves returns x in bf16, and what that is in fp32.
func halves(k *Kernels, x []float32) ([]uint16, []float32) {
	half, wide := make([]uint16, len(x)), make([]float32, len(x))
	k.Narrow(half, x)
	k.Widen(wide, half)
	return half, wide
}

// A product that reads or writes bf16 gives the bits of the one in fp32 that rounds the same numbers.
func TestProductsOfHalves(t *testing.T) {
	const guard = 0x1234
	forISAs(t, func(t *testing.T, isa ISA) {
		for _, words := range []int{packedWords, 700} { // the smaller makes B come in many parts, of columns and of the sum
			k := newTestKernels(t, isa, 2)
			k.gemm.packedWords = words
			for _, s := range [][3]int{{1, 40, 33}, {5, 37, 50}, {70, 45, 300}, {131, 70, 19}, {131, 1100, 530}} {
				if testing.Short() && s[0]*s[1]*s[2] > 1<<24 {
					continue
				}
				m, n, kk := s[0], s[1], s[2]
				for form := range 8 {
					a, b := operand(1, m, kk, form&1 != 0), operand(2, kk, n, form&2 != 0)
					aHalf, bHalf := a, b
					aHalf.Half, a.Data = halves(k, a.Data)
					bHalf.Half, b.Data = halves(k, b.Data)
					aHalf.Data = nil
					if bHalf.Data = nil; form&1 != 0 {
						bHalf = b // weights are not stored in bf16
					}
					var bias []float32
					want := make([]float32, m*n)
					if form&4 != 0 {
						bias = normals(3, n)
						for r := range m {
							copy(want[r*n:], bias)
						}
					}
					k.Mul(want, n, a, b, m, n, kk, true, bias != nil)

					got := make([]uint16, m*(n+1))
					for i := range got {
						got[i] = guard
					}
					k.mulFrom(floats{half: got}, n+1, Mat{Data: bias}, aHalf, bHalf, m, n, kk, true)
					for i := range m {
						for j := range n {
							if w := uint16(math.Float32bits(roundBF16(want[i*n+j])) >> 16); got[i*(n+1)+j] != w {
								t.Fatalf("%v, form %d: element %d, %d is %#x, want %#x", s, form, i, j, got[i*(n+1)+j], w)
							}
						}
						if got[i*(n+1)+n] != guard {
							t.Fatalf("%v, form %d: wrote outside of row %d", s, form, i)
						}
					}
				}
			}
			x, w, y := make([]uint16, 1200), normals(1, 1200), make([]uint16, 1600)
			if allocs := testing.AllocsPerRun(3, func() {
				k.mulFrom(floats{half: y}, 40, Mat{}, Mat{Half: x, LD: 30}, Mat{Data: w, LD: 30, Trans: true}, 40, 40, 30, true)
			}); allocs != 0 {
				t.Fatalf("%v allocations, want none", allocs)
			}
			for _, m := range []int{2, 40} { // an empty sum leaves the bias
				k.mulFrom(floats{half: y}, 2, Mat{Data: []float32{1, 2}}, Mat{LD: 1}, Mat{LD: 2}, m, 2, 0, true)
				if y[2*m-2] != 0x3f80 || y[2*m-1] != 0x4000 || y[2*m] == 0x3f80 {
					t.Fatalf("%d rows without a sum: %#x", m, y[2*m-2:2*m+1])
				}
			}
		}
	})
}

// Attention over bf16 tensors gives the rounded bits of the one over the same numbers in fp32, whether pairs of a
// sequence and a kv head are items or are divided.
func TestAttentionOfHalves(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		for _, threads := range []int{1, 3} {
			k := newTestKernels(t, isa, threads)
			for _, a := range []Attention{
				{Batch: 1, Queries: 300, Keys: 300, Heads: 4, KVHeads: 2, HeadDim: 20, Scale: 0.25, BF16: true},
				{Batch: 3, Queries: 7, Keys: 7, Heads: 6, KVHeads: 2, HeadDim: 8, Scale: 0.4, BF16: true},
				{Batch: 2, Queries: 1, Keys: 1, Heads: 3, KVHeads: 1, HeadDim: 16, Scale: 0.25, BF16: true},
			} {
				n, m := a.Batch*a.Queries*a.Heads*a.HeadDim, a.Batch*a.Queries*a.KVHeads*a.HeadDim
				q, qWide := halves(k, normals(1, n))
				keys, keysWide := halves(k, normals(2, m))
				values, valuesWide := halves(k, normals(3, m))
				dout, doutWide := halves(k, normals(4, n))
				lse, lseHalf := make([]float32, n/a.HeadDim), make([]float32, n/a.HeadDim)
				wide := make([]float32, n)
				out := make([]uint16, n)
				k.AttentionForward(&a, wide, lse, qWide, keysWide, valuesWide)
				k.attention.forward(&a, floats{half: out}, lseHalf, floats{half: q}, floats{half: keys}, floats{half: values})
				rounded(t, k, "out", out, wide)
				for i := range lse {
					if lse[i] != lseHalf[i] {
						t.Fatalf("%+v: lse %d is %v, want %v", a, i, lseHalf[i], lse[i])
					}
				}
				k.Widen(wide, out)
				dq, dk, dv := make([]float32, n), make([]float32, m), make([]float32, m)
				dqHalf, dkHalf, dvHalf := make([]uint16, n), make([]uint16, m), make([]uint16, m)
				k.AttentionBackward(&a, dq, dk, dv, qWide, keysWide, valuesWide, wide, lse, doutWide)
				k.attention.backward(&a, floats{half: dqHalf}, floats{half: dkHalf}, floats{half: dvHalf}, floats{half: q}, floats{half: keys},
					floats{half: values}, floats{half: out}, lse, floats{half: dout})
				rounded(t, k, "dq", dqHalf, dq)
				rounded(t, k, "dk", dkHalf, dk)
				rounded(t, k, "dv", dvHalf, dv)
			}
		}
	})
}

func rounded(t *testing.T, k *Kernels, what string, got []uint16, want []float32) {
	t.Helper()
	half := make([]uint16, len(want))
	k.Narrow(half, want)
	for i := range half {
		if got[i] != half[i] {
			t.Fatalf("%s: element %d is %#x, want %#x", what, i, got[i], half[i])
		}
	}
}
