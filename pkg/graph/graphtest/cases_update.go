package graphtest

import (
	"fmt"
	"math"

	"meap/pkg/graph"
)

func gradNormCases(s source) (cs []*testCase) {
	add := func(name string, in ...tensor) {
		cs = append(cs, &testCase{name: name, spec: graph.GradNorm{}, in: in, tolerance: fine})
	}
	gradients := func(deviation float64) []tensor {
		return []tensor{s.normal(deviation, 33, 17), s.normal(deviation, 1), s.normal(deviation, 4099), s.normal(deviation, 3, 5)}
	}
	with := func(v float64) []tensor {
		g := gradients(1)
		g[2].f[s.IntN(4099)] = float32(v)
		return g
	}
	add("one element", s.normal(1, 1))
	add("four tensors", gradients(1)...)
	add("zeros", filled(0, 65), filled(0, 3, 3))
	add("a NaN", with(math.NaN())...)
	add("an infinity", with(math.Inf(1))...)
	add("a negative infinity", with(math.Inf(-1))...)
	// The squares of these are beyond float32, below and above, but their norm is not.
	add("tiny", gradients(1e-30)...)
	add("huge", gradients(1e25)...)
	many := make([]tensor, 200)
	for i := range many {
		many[i] = s.normal(1, 1+i)
	}
	add("200 tensors", many...)
	return cs
}

func adamWCases(s source) (cs []*testCase) {
	usual := graph.AdamW{Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.05, Clip: 1}
	unclipped := usual
	unclipped.Clip = 0
	slow := graph.AdamW{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-6, Clip: 0.5}
	for _, shape := range [][]int{{1}, {3}, {17, 33}, {4099}} {
		for _, d := range []struct {
			name         string
			spec         graph.AdamW
			norm, halted float32
		}{
			{"clipped", usual, 7.5, 0}, {"below the clip", usual, 0.25, 0}, {"at the clip", usual, 1, 0}, {"norm 0", usual, 0, 0},
			{"clip off", unclipped, 7.5, 0}, {"slow", slow, 3, 0},
			{"halted", usual, 7.5, 1}, {"halted by a NaN", usual, nan, 1}, {"halted by an infinity, clip off", unclipped, infinity, 1},
		} {
			p, g, m, v := s.normal(1, shape...), s.normal(1, shape...), s.normal(0.1, shape...), s.uniform(0, 0.1, shape...)
			report := tensor{shape: []int{3}, f: []float32{2.5, d.norm, d.halted}}
			hyper := tensor{shape: []int{3}, f: []float32{4e-3, 1 / (1 - 0.9*0.9), 1 / (1 - 0.95*0.95)}}
			c := &testCase{name: fmt.Sprint(d.name, " ", shape), spec: d.spec, in: []tensor{p, g, m, v, report, hyper}, writes: []int{1, 2, 3},
				tolerance: []float64{1e-6, 0, 1e-6, 1e-6}, magnitude: adamWTerms} // the gradient becomes exactly 0
			if d.halted != 0 { // nothing may be written
				c.tolerance, c.magnitude = exact, nil
				if shape[0] > 1 {
					c.in[1].f[shape[0]/2] = d.norm
				}
			}
			cs = append(cs, c)
		}
	}
	return cs
}

var nan, infinity = float32(math.NaN()), float32(math.Inf(1))

func stepReportCases(s source) (cs []*testCase) {
	for _, loss := range []float32{2.5, 0, nan, infinity, -infinity} {
		for _, norm := range []float32{0.75, 0, nan, infinity} {
			for _, halted := range []float32{0, 1} {
				cs = append(cs, &testCase{name: fmt.Sprintf("loss %v norm %v halted %v", loss, norm, halted), spec: graph.StepReport{},
					in: []tensor{filled(loss), filled(norm), filled(halted)}, writes: []int{0, 2}, tolerance: exact})
			}
		}
	}
	return cs
}

// adamWTerms sums the absolute terms of p, g, m and v.
func adamWTerms(c *testCase, in, _ []wide) [][]float64 {
	s := c.spec.(graph.AdamW)
	p, g, m, v, norm, hyper := in[0].abs().f, in[1].abs().f, in[2].abs().f, in[3].f, in[4].f[1], in[5].f
	scale := 1.0
	if s.Clip > 0 && norm > s.Clip {
		scale = s.Clip / norm
	}
	dp, dm, dv := make([]float64, len(p)), make([]float64, len(p)), make([]float64, len(p))
	for i := range p {
		gr := g[i] * scale
		dm[i] = s.Beta1*m[i] + (1-s.Beta1)*gr
		dv[i] = s.Beta2*v[i] + (1-s.Beta2)*gr*gr
		dp[i] = p[i] + hyper[0]*(dm[i]*hyper[1]/(math.Sqrt(dv[i]*hyper[2])+s.Epsilon)+s.WeightDecay*p[i])
	}
	return [][]float64{dp, g, dm, dv}
}
