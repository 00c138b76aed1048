package graphtest

import (
	"fmt"
	"math"

	"meap/pkg/graph"
)

var (
	// sums is the tolerance for sums in float32 (see the package comment).
	sums = []float64{1e-5}
	// exact asks for the very bits: copies.
	exact = []float64{0}
	// fine is for element-wise arithmetic and for sums in float64.
	fine = []float64{1e-6}
)

// absolute measures errors by what the operator gives for the absolute values of everything: for an operator that only
// multiplies and adds that is the sum of the absolute terms.
func absolute(c *testCase, in, initial []wide) [][]float64 {
	for i, x := range in {
		in[i] = x.abs()
	}
	for i, x := range initial {
		initial[i] = x.abs()
	}
	var out [][]float64
	for _, x := range evaluate(c.spec, in, initial) {
		out = append(out, x.f)
	}
	return out
}

// products are the sizes n, in, out of matrix products: single rows and columns, primes, one off from the tiles and blocks
// that kernels like (4, 6, 14, 16, 32, 64, 128, 256, 384, 4096).
var products = [][3]int{
	{1, 1, 1}, {1, 64, 3}, {2, 2, 2}, {3, 17, 33}, {5, 8, 127}, {13, 31, 15}, {14, 32, 32}, {15, 33, 65}, {1, 1000, 129}, {2, 385, 17},
	{33, 65, 100}, {64, 64, 64}, {65, 129, 1}, {127, 3, 129}, {129, 100, 127}, {70, 769, 31}, {3, 5, 4099}, {257, 16, 48},
}

// eachProduct gives every size in fp32, and every second one in bf16 too.
func eachProduct(f func(n, in, out int, p graph.Precision, name string)) {
	for i, d := range products {
		for _, p := range []graph.Precision{graph.FP32, graph.BF16Operands} {
			if p == graph.FP32 || i%2 == 1 {
				f(d[0], d[1], d[2], p, fmt.Sprintf("%v %dx%dx%d", p, d[0], d[1], d[2]))
			}
		}
	}
}

func linearCases(s source) (cs []*testCase) {
	eachProduct(func(n, in, out int, p graph.Precision, name string) {
		x, w := s.normal(1, n, in), s.normal(1/math.Sqrt(float64(in)), out, in)
		cs = append(cs,
			&testCase{name: name, spec: graph.Linear{Precision: p}, in: []tensor{x, w},
				tolerance: sums, magnitude: absolute, groups: n, shared: []int{1}},
			&testCase{name: name + " bias", spec: graph.Linear{Precision: p, Bias: true}, in: []tensor{x, w, s.normal(1, out)},
				tolerance: sums, magnitude: absolute, groups: n, shared: []int{1, 2}},
			&testCase{name: name + " sum", spec: graph.Linear{Precision: p, Sum: true}, in: []tensor{x, w, s.normal(1, n, out)},
				tolerance: sums, magnitude: absolute, groups: n, shared: []int{1}})
	})
	return cs
}

func linearDXCases(s source) (cs []*testCase) {
	eachProduct(func(n, in, out int, p graph.Precision, name string) {
		dy, w := s.normal(0.01, n, out), s.normal(1, out, in)
		cs = append(cs,
			&testCase{name: name, spec: graph.LinearDX{Precision: p}, in: []tensor{dy, w}, tolerance: sums, magnitude: absolute, groups: n, shared: []int{1}},
			&testCase{name: name + " sum", spec: graph.LinearDX{Precision: p, Sum: true}, in: []tensor{dy, w, s.normal(1, n, in)},
				tolerance: sums, magnitude: absolute, groups: n, shared: []int{1}})
	})
	return cs
}

func linearDWCases(s source) (cs []*testCase) {
	eachProduct(func(n, in, out int, p graph.Precision, name string) {
		dy, x := s.normal(1, n, out), s.normal(1, n, in)
		cs = append(cs,
			&testCase{name: name, spec: graph.LinearDW{Precision: p}, in: []tensor{dy, x}, tolerance: sums, magnitude: absolute},
			&testCase{name: name + " added", spec: graph.LinearDW{Precision: p, Acc: true}, in: []tensor{dy, x}, adds: []int{0},
				tolerance: sums, magnitude: absolute})
	})
	return cs
}

func columnSumCases(s source) (cs []*testCase) {
	for _, d := range [][2]int{{1, 1}, {1, 17}, {3, 65}, {33, 1}, {129, 100}, {1000, 33}} {
		name := fmt.Sprintf("%dx%d", d[0], d[1])
		dy := s.normal(1, d[0], d[1])
		cs = append(cs,
			&testCase{name: name, spec: graph.ColumnSum{}, in: []tensor{dy}, tolerance: sums, magnitude: absolute},
			&testCase{name: name + " added", spec: graph.ColumnSum{Acc: true}, in: []tensor{dy}, adds: []int{0}, tolerance: sums, magnitude: absolute})
	}
	return cs
}
