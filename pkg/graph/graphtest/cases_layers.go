package graphtest

import (
	"fmt"
	"math"

	"meap/pkg/graph"
)

// matrices are the sizes n, dim of row-wise and element-wise operators.
var matrices = [][2]int{{1, 1}, {1, 2}, {3, 1}, {2, 17}, {1, 64}, {17, 33}, {5, 65}, {33, 100}, {129, 127}, {3, 1000}, {65, 129}, {7, 2049}}

func eachMatrix(f func(n, dim int, name string)) {
	for _, d := range matrices {
		f(d[0], d[1], fmt.Sprintf("%dx%d", d[0], d[1]))
	}
}

func rmsNormCases(s source) (cs []*testCase) {
	add := func(name string, x tensor, eps float64) {
		cs = append(cs, &testCase{name: name, spec: graph.RMSNorm{Eps: eps}, in: []tensor{x, s.normal(1, x.shape[1])},
			tolerance: sums, groups: x.shape[0], shared: []int{1}})
	}
	eachMatrix(func(n, dim int, name string) { add(name, s.normal(1, n, dim), 1e-5) })
	add("rows of zeros", filled(0, 3, 33), 1e-6)
	add("small against eps", s.normal(1e-4, 3, 65), 1e-5)
	add("large", s.normal(1e12, 3, 65), 1e-5)
	return cs
}

func rmsNormGradCases(s source) (cs []*testCase) {
	eachMatrix(func(n, dim int, name string) {
		x, w, dy := s.normal(1, n, dim), s.normal(1, dim), s.normal(1, n, dim)
		rstd := filled(0, n)
		for r := range n {
			sum := 0.0
			for _, v := range x.f[r*dim : (r+1)*dim] {
				sum += float64(v) * float64(v)
			}
			rstd.f[r] = float32(1 / math.Sqrt(sum/float64(dim)+1e-5))
		}
		in := []tensor{x, w, rstd, dy}
		cs = append(cs,
			&testCase{name: name, spec: graph.RMSNormGrad{}, in: in, tolerance: sums, magnitude: rmsNormGradTerms,
				groups: n, shared: []int{1}, mixed: []int{1}},
			&testCase{name: name + " added", spec: graph.RMSNormGrad{AccW: true}, in: in, adds: []int{1}, tolerance: sums, magnitude: rmsNormGradTerms,
				groups: n, shared: []int{1}, mixed: []int{1}},
			&testCase{name: name + " sum", spec: graph.RMSNormGrad{Sum: true}, in: append(in[:4:4], s.normal(1, n, dim)), tolerance: sums,
				magnitude: rmsNormGradTerms, groups: n, shared: []int{1}, mixed: []int{1}},
			&testCase{name: name + " sum, and RMSNorm's result", spec: graph.RMSNormGrad{Sum: true, Remake: true}, in: append(in[:4:4], s.normal(1, n, dim)),
				tolerance: sums, magnitude: rmsNormGradTerms, groups: n, shared: []int{1}, mixed: []int{1}})
	})
	return cs
}

// rmsNormGradTerms sums the absolute terms of dx and dw.
func rmsNormGradTerms(c *testCase, in, initial []wide) [][]float64 {
	x, w, rstd, dy := in[0].abs().f, in[1].abs().f, in[2].f, in[3].abs().f
	n, dim := in[0].shape[0], in[0].shape[1]
	dx, dw := make([]float64, n*dim), make([]float64, dim)
	for r := range n {
		mean := 0.0
		for k := range dim {
			mean += dy[r*dim+k] * w[k] * x[r*dim+k] * rstd[r] / float64(dim)
		}
		for k := range dim {
			dx[r*dim+k] = rstd[r] * (dy[r*dim+k]*w[k] + x[r*dim+k]*rstd[r]*mean)
			dw[k] += dy[r*dim+k] * x[r*dim+k] * rstd[r]
		}
	}
	for _, o := range c.adds {
		for k, v := range initial[o].abs().f {
			dw[k] += v
		}
	}
	if c.spec.(graph.RMSNormGrad).Sum {
		for k, v := range in[4].abs().f {
			dx[k] += v
		}
	}
	return [][]float64{dx, dw}
}

func ropeCases(s source) (cs []*testCase) {
	for _, d := range [][4]int{ // n, heads, headDim, positions
		{1, 1, 2, 1}, {3, 1, 16, 5}, {17, 3, 24, 40}, {2, 5, 64, 300}, {33, 2, 80, 33}, {5, 1, 128, 1000}, {65, 4, 6, 65},
	} {
		n, heads, dim, positions := d[0], d[1], d[2], d[3]
		angle := s.uniform(-math.Pi, math.Pi, positions, dim/2)
		cos, sin := filled(0, positions, dim/2), filled(0, positions, dim/2)
		for i, a := range angle.f {
			cos.f[i], sin.f[i] = float32(math.Cos(float64(a))), float32(math.Sin(float64(a)))
		}
		pos := s.ints(n, positions)
		pos.i[n-1] = int32(positions - 1)
		for _, inverse := range []bool{false, true} {
			cs = append(cs, &testCase{name: fmt.Sprintf("%d tokens %d heads of %d inverse=%v", n, heads, dim, inverse),
				spec: graph.RoPE{Inverse: inverse}, in: []tensor{s.normal(1, n, heads*dim), cos, sin, pos},
				tolerance: fine, magnitude: ropeTerms, groups: n, shared: []int{1, 2}})
		}
	}
	return cs
}

// ropeTerms bounds |x1 cos| + |x2 sin| by the sum of a pair's absolute values.
func ropeTerms(_ *testCase, in, _ []wide) [][]float64 {
	x, half := in[0].abs().f, in[1].shape[1]
	out := make([]float64, len(x))
	for i := range x {
		pair := i + half
		if i/half%2 == 1 {
			pair = i - half
		}
		out[i] = x[i] + x[pair]
	}
	return [][]float64{out}
}

func addCases(s source) (cs []*testCase) {
	for _, shape := range [][]int{{1}, {3}, {33, 65}, {1000}, {4099}, {2, 3, 5}} {
		cs = append(cs, &testCase{name: fmt.Sprint(shape), spec: graph.Add{}, in: []tensor{s.normal(1, shape...), s.normal(1, shape...)},
			tolerance: fine, magnitude: absolute, groups: shape[0]})
	}
	return cs
}

func accumulateCases(s source) (cs []*testCase) {
	for _, shape := range [][]int{{1}, {3}, {33, 65}, {1000}, {4099}, {2, 3, 5}} {
		cs = append(cs, &testCase{name: fmt.Sprint(shape), spec: graph.Accumulate{}, in: []tensor{s.normal(1, shape...), s.normal(1, shape...)},
			tolerance: fine, magnitude: absolute})
	}
	return cs
}

// gates are values where the sigmoid is steep, flat, and beyond the range of a float32 exponential.
func gates(s source, n, dim int) tensor {
	x := s.normal(3, n, dim)
	special := []float32{0, float32(math.Copysign(0, -1)), 1e-20, -1.2785, 20, -20, 87, -87, 89, -89, 104, -104, 1e4, -1e4}
	for i, v := range special {
		if n*dim > len(special) {
			x.f[i*(n*dim)/len(special)] = v
		}
	}
	return x
}

func swiGLUCases(s source) (cs []*testCase) {
	eachMatrix(func(n, dim int, name string) {
		cs = append(cs, &testCase{name: name, spec: graph.SwiGLU{}, in: []tensor{gates(s, n, dim), s.normal(1, n, dim)},
			tolerance: sums, groups: n})
	})
	return cs
}

func swiGLUGradCases(s source) (cs []*testCase) {
	terms := func(_ *testCase, in, _ []wide) [][]float64 {
		gate, up, dy := in[0].f, in[1].abs().f, in[2].abs().f
		dgate := make([]float64, len(gate))
		for i, g := range gate {
			sg := 1 / (1 + math.Exp(-g))
			dgate[i] = dy[i] * up[i] * (sg + math.Abs(g)*sg*(1-sg))
		}
		return [][]float64{dgate, nil}
	}
	eachMatrix(func(n, dim int, name string) {
		in := []tensor{gates(s, n, dim), s.normal(1, n, dim), s.normal(1, n, dim)}
		cs = append(cs, &testCase{name: name, spec: graph.SwiGLUGrad{}, in: in, tolerance: sums, magnitude: terms, groups: n},
			&testCase{name: name + ", and SwiGLU's result", spec: graph.SwiGLUGrad{Remake: true}, in: in, tolerance: sums, magnitude: terms, groups: n})
	})
	return cs
}

// lookups are the sizes vocab, dim, n of embeddings.
var lookups = [][3]int{{1, 1, 1}, {1, 17, 5}, {2, 64, 129}, {259, 33, 65}, {1000, 100, 3}, {259, 128, 300}}

func embeddingCases(s source) (cs []*testCase) {
	for _, d := range lookups {
		ids := s.ints(d[2], d[0])
		ids.i[0] = int32(d[0] - 1)
		cs = append(cs, &testCase{name: fmt.Sprintf("%d of %dx%d", d[2], d[0], d[1]), spec: graph.Embedding{},
			in: []tensor{s.normal(1, d[0], d[1]), ids}, tolerance: exact, groups: d[2], shared: []int{0}})
	}
	return cs
}

func embeddingGradCases(s source) (cs []*testCase) {
	for _, d := range lookups {
		ids := s.ints(d[2], d[0])
		ids.i[0] = int32(d[0] - 1)
		in := []tensor{s.normal(1, d[2], d[1]), ids}
		name := fmt.Sprintf("%d of %dx%d", d[2], d[0], d[1])
		cs = append(cs,
			&testCase{name: name, spec: graph.EmbeddingGrad{Vocab: d[0]}, in: in, tolerance: sums, magnitude: absolute},
			&testCase{name: name + " added", spec: graph.EmbeddingGrad{Vocab: d[0], Acc: true}, in: in, adds: []int{0}, tolerance: sums, magnitude: absolute})
	}
	return cs
}

// castCases cast to bfloat16 and back: halves of a last bit, which go to the even neighbour, subnormal numbers, and what is not a number.
func castCases(s source) (cs []*testCase) {
	special := []float32{0, float32(math.Copysign(0, -1)), 1 + 1./256, 1 + 3./256, 1 + 1./256 + 1e-6, -1 - 1./256, math.SmallestNonzeroFloat32, 1e-40,
		math.MaxFloat32, infinity, -infinity, nan}
	for _, shape := range [][]int{{1}, {3}, {33, 65}, {4099}, {2, 3, 5}} {
		x := s.normal(1, shape...)
		if len(x.f) > len(special) {
			copy(x.f[1:], special)
		}
		cs = append(cs, &testCase{name: fmt.Sprint(shape), spec: graph.Cast{To: graph.BF16}, in: []tensor{x}, tolerance: exact})
		cs = append(cs, &testCase{name: fmt.Sprint("back ", shape), spec: graph.Cast{To: graph.F32}, in: []tensor{x.stored(graph.BF16)}, tolerance: exact})
	}
	return cs
}
