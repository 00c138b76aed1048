package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/cpu"
)

// forISAs runs a test for every level that this machine has, with AVX-512 both
// with its native bf16 product and without.
func forISAs(t *testing.T, test func(t *testing.T, isa ISA)) {
	for _, isa := range AvailableISAs() {
		t.Run(isa.String(), func(t *testing.T) { test(t, isa) })
	}
	if DetectISA() >= AVX512 && cpu.X86.HasAVX512BF16 {
		name := map[bool]string{true: "avx512-bf16", false: "avx512-no-bf16"}[!nativeBF16]
		t.Run(name, func(t *testing.T) {
			nativeBF16 = !nativeBF16
			defer func() { nativeBF16 = !nativeBF16 }()
			test(t, AVX512)
		})
	}
}

func newTestKernels(t testing.TB, isa ISA, threads int) *Kernels {
	t.Helper()
	p := NewPool(threads)
	t.Cleanup(p.Close)
	k, err := NewKernels(p, isa)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// nearestBF16 finds the bf16 value nearest to x by looking at its two neighbours.
func nearestBF16(x float32) float32 {
	down := math.Float32frombits(math.Float32bits(x) &^ 0xffff)
	up := math.Float32frombits(math.Float32bits(x)&^0xffff + 0x10000)
	dd, du := math.Abs(float64(x)-float64(down)), math.Abs(float64(x)-float64(up))
	if dd < du || dd == du && math.Float32bits(down)>>16&1 == 0 {
		return down
	}
	return up
}

const poison = float32(12345)

// guarded returns a matrix of rows x cols inside a larger one: what surrounds it
// is poison and must stay so.
func guarded(rows, cols, ld int) (whole, inner []float32) {
	whole = make([]float32, 32+rows*ld+32)
	for i := range whole {
		whole[i] = poison
	}
	return whole, whole[32 : 32+(rows-1)*ld+cols]
}

func checkGuards(t *testing.T, what string, whole []float32, rows, cols, ld int) {
	t.Helper()
	for i, v := range whole {
		at := i - 32
		if at >= 0 && at/ld < rows && at%ld < cols {
			continue
		}
		if v != poison {
			t.Fatalf("%s: wrote outside of the result, at %d", what, at)
		}
	}
}

// product64 checks c = a b (+ before) element by element against float64, with
// the operands rounded where the product does so. The bound is that of a
// recursive fp32 sum of k terms, in units of the sum of magnitudes.
func product64(t *testing.T, what string, c []float32, ldc int, a, b Mat, m, n, k int, bf16 bool, before float64) {
	t.Helper()
	x, y := dense64(a, m, k, bf16), dense64(Mat{Data: b.Data, LD: b.LD, Trans: !b.Trans}, n, k, bf16)
	for i := range m {
		for j := range n {
			sum, abs := before, math.Abs(before)
			for l, v := range x[i*k:][:k] {
				p := v * y[j*k+l]
				sum += p
				abs += math.Abs(p)
			}
			got := float64(c[i*ldc+j])
			if e := math.Abs(got - sum); !(e <= 2e-6*abs+1e-30) {
				t.Fatalf("%s: c[%d,%d] = %v, want %v (error %.2g of the magnitude)", what, i, j, got, sum, e/abs)
			}
		}
	}
}

// dense64 is a matrix [rows, cols] in float64, rounded to bf16 if asked for.
func dense64(a Mat, rows, cols int, bf16 bool) []float64 {
	x := make([]float64, 0, rows*cols)
	for i := range rows {
		for j := range cols {
			at := i*a.LD + j
			if a.Trans {
				at = j*a.LD + i
			}
			v := a.Data[at]
			if bf16 {
				v = nearestBF16(v)
			}
			x = append(x, float64(v))
		}
	}
	return x
}

var gemmShapes = [][3]int{
	{1, 1, 1}, {1, 1, 2}, {1, 33, 17}, {2, 5, 33}, {4, 32, 16}, {5, 31, 1}, {13, 31, 15}, {14, 32, 384},
	{15, 33, 17}, {6, 16, 32}, {7, 17, 31}, {29, 65, 401}, {57, 64, 50}, {61, 40, 785}, {130, 100, 37},
}

func TestGemmAgainstFloat64(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		for s, shape := range gemmShapes {
			if testing.Short() && s%2 != 0 {
				continue
			}
			m, n, kk := shape[0], shape[1], shape[2]
			for form := range 4 {
				at, bt := form&1 != 0, form&2 != 0
				for _, bf16 := range []bool{false, true} {
					for _, acc := range []bool{false, true} {
						what := fmt.Sprintf("m=%d n=%d k=%d a^T=%v b^T=%v bf16=%v acc=%v", m, n, kk, at, bt, bf16, acc)
						a, b := operand(uint64(s), m, kk, at), operand(uint64(100+s), kk, n, bt)
						ldc := n + s%3
						whole, c := guarded(m, n, ldc)
						before := 0.0
						if acc {
							before = 3
							for i := range m {
								for j := range n {
									c[i*ldc+j] = 3
								}
							}
						} else {
							for i := range m {
								for j := range n {
									c[i*ldc+j] = float32(math.NaN())
								}
							}
						}
						k.Mul(c, ldc, a, b, m, n, kk, bf16, acc)
						product64(t, what, c, ldc, a, b, m, n, kk, bf16, before)
						checkGuards(t, what, whole, m, n, ldc)
					}
				}
			}
		}
	})
}

// operand is a random matrix, stored transposed or not, that ends exactly where
// its last element does and has garbage between its rows.
func operand(seed uint64, rows, cols int, trans bool) Mat {
	if trans {
		rows, cols = cols, rows
	}
	ld := cols + int(seed%4)
	data := normals(seed, (rows-1)*ld+cols)
	for i := range data {
		if i%ld >= cols {
			data[i] = float32(math.NaN())
		}
	}
	return Mat{Data: data, LD: ld, Trans: trans}
}

func TestLinearForms(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		m, n, kk := 19, 37, 23
		x, w, dy := normals(1, m*kk), normals(2, n*kk), normals(3, m*n)
		y, dx, dw := make([]float32, m*n), make([]float32, m*kk), make([]float32, n*kk)
		k.NT(y, x, w, m, n, kk, false, false)
		k.NN(dx, dy, w, m, n, kk, false, false)
		k.TN(dw, dy, x, m, n, kk, false, false)
		k.TN(dw, dy, x, m, n, kk, false, true)
		for i := range m {
			for j := range n {
				s := 0.0
				for l := range kk {
					s += float64(x[i*kk+l]) * float64(w[j*kk+l])
				}
				near(t, "y", float64(y[i*n+j]), s, 1e-4)
			}
			for l := range kk {
				s := 0.0
				for j := range n {
					s += float64(dy[i*n+j]) * float64(w[j*kk+l])
				}
				near(t, "dx", float64(dx[i*kk+l]), s, 1e-4)
			}
		}
		for j := range n {
			for l := range kk {
				s := 0.0
				for i := range m {
					s += float64(dy[i*n+j]) * float64(x[i*kk+l])
				}
				near(t, "dw", float64(dw[j*kk+l]), 2*s, 1e-4)
			}
		}
	})
}

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestGemmEmpty(t *testing.T) {
	k := newTestKernels(t, Generic, 1)
	c := []float32{1, 2, 3, 4, 5, 6}
	k.Mul(c, 3, Mat{LD: 1}, Mat{LD: 2}, 2, 2, 0, false, true)
	if !slices.Equal(c, []float32{1, 2, 3, 4, 5, 6}) {
		t.Fatalf("adding an empty sum changed c: %v", c)
	}
	k.Mul(c, 3, Mat{LD: 1}, Mat{LD: 2}, 2, 2, 0, false, false)
	if !slices.Equal(c, []float32{0, 0, 3, 0, 0, 6}) {
		t.Fatalf("an empty sum: %v", c)
	}
	k.Mul(nil, 3, Mat{LD: 1}, Mat{LD: 2}, 0, 2, 1, false, false)
}

func TestGemmTooShort(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		for _, short := range []int{0, 1, 2} {
			n := []int{20 * 30, 20 * 10, 10 * 30}
			n[short]--
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("operand %d one element short: no panic", short)
					}
				}()
				k.Mul(make([]float32, n[0]), 30, Mat{Data: make([]float32, n[1]), LD: 10},
					Mat{Data: make([]float32, n[2]), LD: 30}, 20, 30, 10, false, false)
			}()
		}
	})
}

// Larger than what is packed at a time in each direction, checked by a matrix of
// rank one with small integers, whose product is exact.
func TestGemmBeyondPackedParts(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		k.gemm.packedWords = 1
		for _, s := range [][3]int{{260, packedCols + 33, 3}, {160, 35, 2*384 + 100}, {130, packedCols + 5, 2*384 + 9}} {
			testRankOne(t, k, s[0], s[1], s[2])
		}
	})
}

// A product that begins with a matrix, of either type, apart or where the result goes, gives the bits of Mul on a result that holds it,
// rounded where the result is bf16: one row, few and many, B in one part or in many, and without a sum.
func TestGemmFrom(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		for _, words := range []int{packedWords, 700} {
			k := newTestKernels(t, isa, 2)
			k.gemm.packedWords = words
			for _, s := range [][3]int{{1, 40, 33}, {1, 21, 801}, {5, 37, 500}, {70, 45, 300}, {131, 1100, 430}, {1, 4, 0}, {150, 7, 0}} {
				m, n, kk := s[0], s[1], s[2]
				if testing.Short() && m*n*kk > 1<<24 {
					continue
				}
				a, b := operand(1, m, max(1, kk), false), operand(2, max(1, kk), n, true)
				starts := map[string]Mat{"apart": {Data: normals(3, m*(n+2)), LD: n + 2}, "in place": {Data: normals(3, m*(n+1)), LD: n + 1}}
				for name, start := range starts {
					start.Half, start.Data = halves(k, start.Data) // so that both types hold the same numbers
					for _, bf16 := range []bool{false, true} {
						want := make([]float32, m*n)
						for r := range m {
							copy(want[r*n:][:n], start.Data[r*start.LD:])
						}
						k.Mul(want, n, a, b, m, n, kk, bf16, true)
						for form := range 4 {
							full, from := form&1 != 0, start
							if form&2 != 0 {
								from.Half = nil
							} else {
								from.Data = nil
							}
							c := floats{full: slices.Repeat([]float32{poison}, m*(n+1))}
							if !full {
								c = floats{half: slices.Repeat([]uint16{0x7fc1}, m*(n+1))}
							}
							if name == "in place" {
								if full != (from.Half == nil) {
									continue // another type has no place there
								}
								c = floats{full: slices.Clone(from.Data), half: slices.Clone(from.Half)}
								from.Data, from.Half = c.full, c.half
							}
							before := floats{full: slices.Clone(c.full), half: slices.Clone(c.half)}
							k.mulFrom(c, n+1, from, a, b, m, n, kk, bf16)
							for i := range m * (n + 1) {
								r, j := i/(n+1), i%(n+1)
								var ok bool
								switch {
								case full && j < n:
									ok = c.full[i] == want[r*n+j]
								case full:
									ok = c.full[i] == before.full[i]
								case j < n:
									ok = c.half[i] == uint16(math.Float32bits(roundBF16(want[r*n+j]))>>16)
								default:
									ok = c.half[i] == before.half[i]
								}
								if !ok {
									t.Fatalf("%v, bf16=%v, start %s, form %d: element %d of row %d is wrong", s, bf16, name, form, j, r)
								}
							}
						}
					}
				}
			}
		}
	})
}

func testRankOne(t *testing.T, k *Kernels, m, n, kk int) {
	a, b := make([]float32, m*kk), make([]float32, n*kk)
	for i := range a {
		a[i] = float32(i / kk % 7)
	}
	for i := range b {
		b[i] = float32(i / kk % 5)
	}
	for _, bf16 := range []bool{false, true} {
		c := make([]float32, m*n)
		k.NT(c, a, b, m, n, kk, bf16, false)
		for i := range m {
			for j := range n {
				if want := float32(kk * (i % 7) * (j % 5)); c[i*n+j] != want {
					t.Fatalf("m=%d n=%d k=%d bf16=%v: c[%d,%d] = %v, want %v", m, n, kk, bf16, i, j, c[i*n+j], want)
				}
			}
		}
	}
}

func TestGemmSameForAnyThreads(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		m, n, kk := 131, 150, 500
		a, b := normals(1, m*kk), normals(2, n*kk)
		for _, bf16 := range []bool{false, true} {
			var want []float32
			for threads := 1; threads <= 3; threads++ {
				c := make([]float32, m*n)
				newTestKernels(t, isa, threads).NT(c, a, b, m, n, kk, bf16, false)
				if want == nil {
					want = c
				} else if !slices.Equal(c, want) {
					t.Fatalf("bf16=%v: %d threads differ from one", bf16, threads)
				}
			}
		}
	})
}

// Whether B is packed where it is used, in one chunk of the sum or in several, or a part of it before, changes no bit. With more
// threads there are too few columns for the former.
func TestGemmFewRowsAreAsMany(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		one, many := newTestKernels(t, isa, 1), newTestKernels(t, isa, 7)
		tiles := newTiles(isa, false)
		n := fewStrips*tiles.nr + 5
		for _, s := range [][2]int{{tiles.fewRows, 900}, {tiles.fewRows - 3, 260}, {fewPanels*tiles.mr + 1, 6000}} {
			m, kk := s[0], s[1]
			if m <= 0 {
				continue
			}
			for _, trans := range [][2]bool{{false, true}, {false, false}, {true, false}, {true, true}} {
				a, b := Mat{Data: normals(1, m*kk), LD: kk}, Mat{Data: normals(2, n*kk), LD: n, Trans: trans[1]}
				if a.Trans = trans[0]; a.Trans {
					a.LD = m
				}
				if b.Trans {
					b.LD = kk
				}
				for _, bf16 := range []bool{false, true} {
					for _, acc := range []bool{false, true} {
						few, want := normals(3, m*n), normals(3, m*n)
						one.Mul(few, n, a, b, m, n, kk, bf16, acc)
						many.Mul(want, n, a, b, m, n, kk, bf16, acc)
						if !slices.Equal(few, want) {
							t.Fatalf("%d x %d x %d, transposed %v, bf16=%v, acc=%v: one thread differs from seven", m, n, kk, trans, bf16, acc)
						}
					}
				}
				if trans == [2]bool{false, true} {
					c := make([]float32, m*n)
					one.Mul(c, n, a, b, m, n, kk, false, false)
					product64(t, fmt.Sprintf("%d x %d x %d", m, n, kk), c, n, a, b, m, n, kk, false, 0)
				}
			}
		}
	})
}

// A row of the result is the same to the last bit whatever rows are beside it:
// one alone, a few (packed where used), many.
func TestGemmRowsAreIndependent(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		m, n, kk := 75, 67, 805
		a, b := normals(1, m*kk), normals(2, n*kk)
		for _, bf16 := range []bool{false, true} {
			all := make([]float32, m*n)
			k.NT(all, a, b, m, n, kk, bf16, false)
			for _, rows := range [][2]int{{0, 1}, {3, 4}, {2, 7}, {0, 15}, {40, 75}, {1, 70}} {
				part := make([]float32, (rows[1]-rows[0])*n)
				k.NT(part, a[rows[0]*kk:], b, rows[1]-rows[0], n, kk, bf16, false)
				if !slices.Equal(part, all[rows[0]*n:rows[1]*n]) {
					t.Fatalf("bf16=%v: rows %d..%d alone differ from the same rows of %d", bf16, rows[0], rows[1], m)
				}
			}
		}
	})
}

func TestGemmNaNAndInf(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for _, bf16 := range []bool{false, true} {
			c := make([]float32, 4)
			k.NT(c, []float32{nan, 1, 1, 1}, []float32{1, 1, inf, 1}, 2, 2, 2, bf16, false)
			if c[0] == c[0] || c[1] == c[1] || c[2] != 2 || c[3] != inf {
				t.Fatalf("bf16=%v: %v, want [NaN NaN 2 Inf]", bf16, c)
			}
		}
	})
}

func TestGemmAllocatesNothing(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 3)
		for _, m := range []int{2, 100, 150} {
			n, kk := 450, 90
			x, w, y := normals(1, m*kk), normals(2, n*kk), make([]float32, m*n)
			if a := testing.AllocsPerRun(20, func() { k.NT(y, x, w, m, n, kk, true, false) }); a != 0 {
				t.Fatalf("m=%d: %v allocations per product, want 0", m, a)
			}
		}
	})
}

func TestRoundBF16(t *testing.T) {
	for _, c := range []struct{ in, want uint32 }{
		{0x3f800000, 0x3f800000}, // 1
		{0x3f808000, 0x3f800000}, // halfway, down to even
		{0x3f818000, 0x3f820000}, // halfway, up to even
		{0x3f808001, 0x3f810000},
		{0x7f7fffff, 0x7f800000}, // the largest fp32 value rounds to infinity
		{0xff800000, 0xff800000},
		{0x7f800001, 0x7fc00000}, // a NaN in the bits that are cut stays one
	} {
		if got := math.Float32bits(roundBF16(math.Float32frombits(c.in))); got != c.want {
			t.Errorf("%#x rounds to %#x, want %#x", c.in, got, c.want)
		}
	}
	for _, x := range normals(9, 1000) {
		if got, want := roundBF16(x), nearestBF16(x); got != want {
			t.Errorf("%v rounds to %v, want %v", x, got, want)
		}
	}
}

func BenchmarkGemm(b *testing.B) {
	for _, isa := range AvailableISAs() {
		for _, s := range [][3]int{{2048, 768, 768}, {2048, 2048, 768}, {64, 64, 2048}, {1, 2048, 768}} {
			for _, bf16 := range []bool{false, true} {
				m, n, kk := s[0], s[1], s[2]
				b.Run(fmt.Sprintf("%s/%dx%dx%d/bf16=%v", isa, m, n, kk, bf16), func(b *testing.B) {
					k := newTestKernels(b, isa, 0)
					x, w, y := normals(1, m*kk), normals(2, n*kk), make([]float32, m*n)
					for b.Loop() {
						k.NT(y, x, w, m, n, kk, bf16, false)
					}
					b.ReportMetric(2*float64(m)*float64(n)*float64(kk)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}
