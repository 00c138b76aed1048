package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// vectorLengths covers empty vectors, whole vectors of each width and every tail.
func vectorLengths() []int {
	var n []int
	for i := range 35 {
		n = append(n, i)
	}
	return append(n, 63, 64, 100, 801)
}

// forVectors runs a test for every ISA and length with a source of vectors: each
// is poisoned before and after, and checked to have stayed so at the end.
func forVectors(t *testing.T, test func(t *testing.T, k *Kernels, n int, vec func(x []float32) []float32)) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		for _, n := range vectorLengths() {
			var wholes [][]float32
			test(t, k, n, func(x []float32) []float32 {
				whole := make([]float32, len(x)+40)
				for i := range whole {
					whole[i] = poison
				}
				copy(whole[20:], x)
				wholes = append(wholes, whole)
				return whole[20 : 20+len(x)]
			})
			for _, w := range wholes {
				for i, v := range w {
					if (i < 20 || i >= len(w)-20) && v != poison {
						t.Fatalf("n=%d: wrote outside of a vector, at %d", n, i-20)
					}
				}
			}
		}
	})
}

// close32 compares with a float64 result: relative tolerance plus an absolute one
// for what cancels.
func close32(t *testing.T, what string, got float32, want, rel, abs float64) {
	t.Helper()
	if math.IsNaN(want) && got != got || float64(got) == want {
		return
	}
	if !(math.Abs(float64(got)-want) <= rel*math.Abs(want)+abs) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestExpAccuracy(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		var x []float32
		for v := -87.33; v < 88.72; v += 0.00317 {
			x = append(x, float32(v))
		}
		for v := -0.4; v < 0.4; v += 0.00001 {
			x = append(x, float32(v))
		}
		y := make([]float32, len(x))
		k.Exp(y, x)
		for i, v := range x {
			close32(t, fmt.Sprintf("exp(%v)", v), y[i], math.Exp(float64(v)), 2e-7, 0)
		}
	})
}

func TestExpExtremes(t *testing.T) {
	inf := float32(math.Inf(1))
	x := []float32{0, float32(math.Copysign(0, -1)), -inf, inf, float32(math.NaN()), -87.4, -88, -1e30, -104, 88.73, 89, 200, 3e38, -3e38, 1e-30}
	want := []float32{1, 1, 0, inf, float32(math.NaN()), 0, 0, 0, 0, inf, inf, inf, inf, 0, 1}
	forISAs(t, func(t *testing.T, isa ISA) {
		y := make([]float32, len(x))
		newTestKernels(t, isa, 1).Exp(y, x)
		for i := range x {
			if y[i] != want[i] && !(want[i] != want[i] && y[i] != y[i]) {
				t.Errorf("exp(%v) = %v, want %v", x[i], y[i], want[i])
			}
		}
	})
}

func TestSoftmaxPieces(t *testing.T) {
	forVectors(t, func(t *testing.T, k *Kernels, n int, vec func([]float32) []float32) {
		x := vec(normals(uint64(n), n))
		dst := vec(make([]float32, n))
		top := math.Inf(-1)
		for _, v := range x {
			top = max(top, float64(v))
		}
		if got := float64(k.Max(x)); got != top {
			t.Fatalf("n=%d: max %v, want %v", n, got, top)
		}
		shift := float32(0.25)
		got, want := k.ExpSum(dst, x, shift), 0.0
		for i, v := range x {
			e := math.Exp(float64(v - shift))
			close32(t, "ExpSum", dst[i], e, 2e-7, 0)
			want += e
		}
		near(t, "sum of exponentials", got, want, 1e-6*want)
		k.ExpScale(dst, x, shift, -3)
		for i, v := range x {
			close32(t, "ExpScale", dst[i], -3*math.Exp(float64(v-shift)), 3e-7, 0)
		}
	})
}

func TestMaxPassesOverNaN(t *testing.T) {
	forVectors(t, func(t *testing.T, k *Kernels, n int, vec func([]float32) []float32) {
		for at := range min(n, 40) {
			x := vec(slices.Repeat([]float32{-5}, n))
			x[at] = float32(math.NaN())
			x[(at+7)%n] = -2
			if got := k.Max(x); n > 1 && n != 7 && got != -2 {
				t.Fatalf("n=%d, NaN at %d: max %v, want -2", n, at, got)
			}
			if s := k.ExpSum(x, x, 0); s == s && n != 1 && n != 7 {
				t.Fatalf("n=%d, NaN at %d: the sum of exponentials is %v, want NaN", n, at, s)
			}
		}
	})
}

func TestElementwise(t *testing.T) {
	forVectors(t, func(t *testing.T, k *Kernels, n int, vec func([]float32) []float32) {
		x0, y0 := normals(1, n), normals(2, n)
		x, y := vec(x0), vec(y0)
		dst := vec(make([]float32, n))
		k.Axpy(y, 0.5, x)
		for i := range x {
			close32(t, "axpy", y[i], float64(y0[i])+0.5*float64(x0[i]), 1e-6, 1e-7)
		}
		k.Add(dst, x, y)
		for i := range x {
			if dst[i] != x[i]+y[i] {
				t.Fatalf("add: %v", dst[i])
			}
		}
		k.Scale(dst, -2.5, x)
		for i := range x {
			if dst[i] != -2.5*x[i] {
				t.Fatalf("scale: %v", dst[i])
			}
		}
		dot, squares := 0.0, 0.0
		for i := range x {
			dot += float64(x[i]) * float64(y[i])
			squares += float64(x[i]) * float64(x[i])
		}
		near(t, "dot", k.Dot(x, y), dot, 1e-12*float64(n))
		near(t, "sum of squares", k.SumSquares(x), squares, 1e-12*float64(n))
	})
}

func TestSwiGLU(t *testing.T) {
	silu := func(x float64) float64 { return x / (1 + math.Exp(-x)) }
	forVectors(t, func(t *testing.T, k *Kernels, n int, vec func([]float32) []float32) {
		gate, up, dy := vec(normals(1, n)), vec(normals(2, n)), vec(normals(3, n))
		for i := range gate {
			gate[i] *= 8
		}
		y, dgate, dup := vec(make([]float32, n)), vec(make([]float32, n)), vec(make([]float32, n))
		k.SwiGLU(y, gate, up)
		k.SwiGLUGrad(dgate, dup, gate, up, dy)
		for i := range gate {
			g, u, d := float64(gate[i]), float64(up[i]), float64(dy[i])
			close32(t, "y", y[i], silu(g)*u, 1e-6, 1e-9)
			close32(t, "dup", dup[i], d*silu(g), 1e-6, 1e-9)
			const h = 1e-5
			slope := (silu(g+h) - silu(g-h)) / (2 * h)
			close32(t, "dgate", dgate[i], d*u*slope, 1e-6, 1e-6)
		}
	})
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		y := make([]float32, 4)
		k.SwiGLU(y, []float32{-100, 100, -1e30, 1e30}, []float32{1, 1, 1, 1})
		for i, want := range []float32{0, 100, 0, 1e30} {
			close32(t, "silu at the extremes", y[i], float64(want), 0, 1e-30)
		}
	})
}

func TestRMSNorm(t *testing.T) {
	const eps = 1e-5
	forVectors(t, func(t *testing.T, k *Kernels, n int, vec func([]float32) []float32) {
		if n == 0 {
			return
		}
		x, w, dy := vec(normals(1, n)), vec(normals(2, n)), vec(normals(3, n))
		y, dx, dw := vec(make([]float32, n)), vec(make([]float32, n)), vec(slices.Repeat([]float32{2}, n))
		rstd := k.RMSNormRow(y, x, w, eps)
		k.RMSNormGradRow(dx, dw, x, w, dy, rstd)

		norm := func(x []float64) float64 {
			s := 0.0
			for _, v := range x {
				s += v * v
			}
			return 1 / math.Sqrt(s/float64(n)+eps)
		}
		x64 := make([]float64, n)
		for i, v := range x {
			x64[i] = float64(v)
		}
		r := norm(x64)
		close32(t, "rstd", rstd, r, 1e-6, 0)
		// loss = sum dy y, differentiated numerically
		loss := func() float64 {
			r, s := norm(x64), 0.0
			for i, v := range x64 {
				s += float64(dy[i]) * v * r * float64(w[i])
			}
			return s
		}
		for i := range x {
			close32(t, "y", y[i], x64[i]*r*float64(w[i]), 1e-6, 0)
			close32(t, "dw", dw[i], 2+float64(dy[i])*x64[i]*r, 1e-6, 1e-6)
			if i > 40 {
				continue
			}
			const h = 1e-5
			keep := x64[i]
			x64[i] = keep + h
			up := loss()
			x64[i] = keep - h
			down := loss()
			x64[i] = keep
			close32(t, "dx", dx[i], (up-down)/(2*h), 1e-5, 2e-6)
		}
	})
}

func TestRoPE(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		for _, half := range []int{1, 8, 12, 16, 32, 40, 64} {
			heads := 3
			x := normals(1, heads*2*half)
			angle := normals(2, half)
			cos, sin := make([]float32, half), make([]float32, half)
			for i, a := range angle {
				cos[i], sin[i] = float32(math.Cos(float64(a))), float32(math.Sin(float64(a)))
			}
			y := make([]float32, len(x))
			k.RoPERow(y, x, cos, sin, false)
			for h := range heads {
				for i := range half {
					a, b := float64(x[h*2*half+i]), float64(x[h*2*half+half+i])
					c, s := math.Cos(float64(angle[i])), math.Sin(float64(angle[i]))
					near(t, "first", float64(y[h*2*half+i]), a*c-b*s, 1e-6)
					near(t, "second", float64(y[h*2*half+half+i]), b*c+a*s, 1e-6)
				}
			}
			k.RoPERow(y, y, cos, sin, true) // in place, and back
			for i := range x {
				near(t, "back", float64(y[i]), float64(x[i]), 1e-6)
			}
		}
	})
}

func TestAdamW(t *testing.T) {
	forVectors(t, func(t *testing.T, k *Kernels, n int, vec func([]float32) []float32) {
		p, m, v := vec(normals(1, n)), vec(make([]float32, n)), vec(make([]float32, n))
		g := vec(make([]float32, n))
		p64, m64, v64 := make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range p {
			p64[i] = float64(p[i])
		}
		for step := 1; step <= 4; step++ {
			s := AdamWStep{
				LearningRate: 0.01, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.1, GradScale: 0.5,
				Correct1: 1 / (1 - math.Pow(0.9, float64(step))), Correct2: 1 / (1 - math.Pow(0.95, float64(step))),
			}
			copy(g, normals(uint64(10+step), n))
			for i := range g {
				grad := 0.5 * float64(g[i])
				m64[i] = 0.9*m64[i] + 0.1*grad
				v64[i] = 0.95*v64[i] + 0.05*grad*grad
				p64[i] -= 0.01 * (m64[i]*s.Correct1/(math.Sqrt(v64[i]*s.Correct2)+1e-8) + 0.1*p64[i])
			}
			k.AdamW(p, g, m, v, s)
		}
		for i := range p {
			close32(t, "p", p[i], p64[i], 1e-6, 1e-6)
			close32(t, "m", m[i], m64[i], 1e-6, 1e-7)
			close32(t, "v", v[i], v64[i], 1e-6, 1e-9)
			if g[i] != 0 {
				t.Fatal("the gradient was not cleared")
			}
		}
	})
}

// Stateless kernels called with stack slices must not allocate.
func TestVectorKernelsAllocateNothing(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		x, y, z := normals(1, 50), normals(2, 50), normals(3, 50)
		w, u := make([]float32, 50), make([]float32, 50)
		allocs := testing.AllocsPerRun(10, func() {
			k.Axpy(z, 2, x)
			k.ExpSum(z, x, 1)
			k.Max(x)
			k.SwiGLUGrad(w, u, x, y, z)
			k.RMSNormGradRow(w, u, x, y, z, k.RMSNormRow(w, x, y, 1e-5))
			k.RoPERow(w, x, y[:5], z[:5], false)
			k.AdamW(x, y, w, u, AdamWStep{Correct1: 1, Correct2: 1})
		})
		if allocs != 0 {
			t.Fatalf("%v allocations, want 0", allocs)
		}
	})
}
