package graphtest

import (
	"fmt"
	"math"

	"meap/pkg/graph"
)

// heads are the sizes n, dim, vocab of output heads.
var heads = [][3]int{{1, 1, 1}, {3, 16, 2}, {1, 65, 259}, {17, 33, 3}, {65, 64, 259}, {129, 17, 100}, {5, 100, 1000}, {5, 7, 4099}}

func eachHead(s source, f func(p graph.Precision, name string, x, head, labels tensor)) {
	labels := func(n, vocab int, ignored func(i int) bool) tensor {
		y := s.ints(n, vocab)
		for i := range y.i {
			if ignored(i) {
				y.i[i] = graph.IgnoreLabel
				if i%4 == 3 {
					y.i[i] = -1 // any negative label
				}
			}
		}
		return y
	}
	none, all := func(int) bool { return false }, func(int) bool { return true }
	some := func(int) bool { return s.IntN(3) == 0 }
	for _, p := range []graph.Precision{graph.FP32, graph.BF16Operands} {
		for _, d := range heads {
			n, dim, vocab := d[0], d[1], d[2]
			name := fmt.Sprintf("%v %dx%d vocab %d", p, n, dim, vocab)
			x, head := s.normal(1, n, dim), s.normal(1, vocab, dim)
			if p == graph.FP32 {
				f(p, name, x, head, labels(n, vocab, none))
			}
			f(p, name+" some ignored", x, head, labels(n, vocab, some))
		}
		f(p, fmt.Sprintf("%v all ignored", p), s.normal(1, 9, 16), s.normal(1, 65, 16), labels(9, 65, all))
	}
	f(graph.FP32, "fp32 large logits", s.normal(30, 9, 16), s.normal(5, 65, 16), labels(9, 65, none))
}

func crossEntropyCases(s source) (cs []*testCase) {
	eachHead(s, func(p graph.Precision, name string, x, head, labels tensor) {
		cs = append(cs, &testCase{name: name, spec: graph.LinearCrossEntropy{Precision: p}, in: []tensor{x, head, labels},
			tolerance: sums, magnitude: func(_ *testCase, in, _ []wide) [][]float64 {
				_, _, nll := lossTerms(p, in[0], in[1], in[2], filled64(0, x.shape[0]))
				return [][]float64{nll}
			}, groups: x.shape[0], shared: []int{1}})
	})
	return cs
}

func crossEntropyGradCases(s source) (cs []*testCase) {
	eachHead(s, func(p graph.Precision, name string, x, head, labels tensor) {
		in := []tensor{x, head, labels, s.normal(1, x.shape[0])}
		tolerance := sums
		if p == graph.BF16Operands {
			tolerance = []float64{1e-2, 1e-2, 1e-5}
		}
		for _, add := range []bool{false, true} {
			c := &testCase{name: name, spec: graph.LinearCrossEntropyGrad{Precision: p, AccHead: add}, in: in, tolerance: tolerance,
				groups: x.shape[0], shared: []int{1}, mixed: []int{1}}
			c.magnitude = func(c *testCase, in, initial []wide) [][]float64 {
				dx, dhead, nll := lossTerms(p, in[0], in[1], in[2], in[3])
				for _, o := range c.adds {
					for i, v := range initial[o].abs().f {
						dhead[i] += v
					}
				}
				return [][]float64{dx, dhead, nll}
			}
			if add {
				c.name += " added"
				c.adds = []int{1}
			}
			cs = append(cs, c)
		}
	})
	return cs
}

func filled64(v float64, n int) wide {
	x := wide{shape: []int{n}, f: make([]float64, n)}
	for i := range x.f {
		x.f[i] = v
	}
	return x
}

func rounded(x wide) wide {
	y := wide{shape: x.shape, f: make([]float64, len(x.f))}
	for i, v := range x.f {
		y.f[i] = float64(graph.RoundBF16(float32(v)))
	}
	return y
}

// lossTerms sums the absolute terms of dx, dhead and nll: logits are as uncertain as their terms are large, and so are the
// probabilities, relatively. Ignored labels leave exact zeros.
func lossTerms(p graph.Precision, x, head, labels, dnll wide) (dx, dhead, nll []float64) {
	dim, vocab := head.shape[1], head.shape[0]
	if p == graph.BF16Operands {
		x, head = rounded(x), rounded(head)
	}
	dx, dhead, nll = make([]float64, len(x.f)), make([]float64, len(head.f)), make([]float64, len(labels.i))
	z := make([]float64, vocab)
	for r, label := range labels.i {
		if label < 0 {
			continue
		}
		top, doubt, sum := math.Inf(-1), 1.0, 0.0
		for c := range z {
			dot, terms := 0.0, 0.0
			for k := range dim {
				t := x.f[r*dim+k] * head.f[c*dim+k]
				dot, terms = dot+t, terms+math.Abs(t)
			}
			z[c], top, doubt = dot, max(top, dot), max(doubt, 1+terms)
		}
		for _, v := range z {
			sum += math.Exp(v - top)
		}
		lse := top + math.Log(sum)
		nll[r] = doubt + math.Abs(lse)
		for c, v := range z {
			dz := math.Exp(v-lse) * doubt
			if c == int(label) {
				dz++
			}
			dz *= math.Abs(dnll.f[r])
			for k := range dim {
				dx[r*dim+k] += dz * math.Abs(head.f[c*dim+k])
				dhead[c*dim+k] += dz * math.Abs(x.f[r*dim+k])
			}
		}
	}
	return dx, dhead, nll
}

// weightedSumCases hold errors against the sum itself, however much of it cancels: the definition sums in float64.
func weightedSumCases(s source) (cs []*testCase) {
	for _, n := range []int{1, 3, 65, 1000, 4099} {
		cs = append(cs, &testCase{name: fmt.Sprint(n), spec: graph.WeightedSum{}, in: []tensor{s.normal(1, n), s.normal(1)}, tolerance: fine})
	}
	return cs
}

func weightedSumGradCases(s source) (cs []*testCase) {
	for _, n := range []int{1, 3, 65, 1000} {
		cs = append(cs, &testCase{name: fmt.Sprint(n), spec: graph.WeightedSumGrad{N: n}, in: []tensor{s.normal(1), s.normal(1)}, tolerance: fine})
	}
	return cs
}
