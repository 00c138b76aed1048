package cpu

import (
	"math"

	"meap/pkg/graph"
)

// gradNorm sums the squares of every operand in blocks of fixed size and joins them in order.
func (d *Device) gradNorm(grads []graph.Desc) graph.Kernel {
	type block struct{ tensor, lo, hi int }
	var blocks []block
	for t, g := range grads {
		for lo := 0; lo < g.Elems(); lo += 4 * pieceElems {
			blocks = append(blocks, block{t, lo, min(lo+4*pieceElems, g.Elems())})
		}
	}
	sums := make([]float64, len(blocks))
	var in []graph.Buffer
	s := newSpread(d.k.pool, func(lo, hi, _ int) {
		for i := lo; i < hi; i++ {
			b := blocks[i]
			sums[i] = d.k.SumSquares(in[b.tensor].F32()[b.lo:b.hi])
		}
	})
	totals := make([]float64, len(grads))
	return func(args, out []graph.Buffer) error {
		in = args
		s.run(len(blocks), 1)
		clear(totals)
		for i, b := range blocks {
			totals[b.tensor] += sums[i]
		}
		total, squares := 0.0, out[1].F32()
		for t, v := range totals {
			squares[t] = float32(v)
			total += v
		}
		out[0].F32()[0] = float32(math.Sqrt(total))
		in = nil
		return nil
	}
}

func (d *Device) adamW(spec graph.AdamW) graph.Kernel {
	var p, g, m, v []float32
	var step AdamWStep
	s := newSpread(d.k.pool, func(lo, hi, _ int) { d.k.AdamW(p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], step) })
	return func(in, _ []graph.Buffer) error {
		p, g, m, v = in[0].F32(), in[1].F32(), in[2].F32(), in[3].F32()
		report, hyper := in[4].F32(), in[5].F32()
		if report[2] != 0 {
			return nil
		}
		step = AdamWStep{
			LearningRate: float64(hyper[0]), Beta1: spec.Beta1, Beta2: spec.Beta2, Epsilon: spec.Epsilon, WeightDecay: spec.WeightDecay,
			Correct1: float64(hyper[1]), Correct2: float64(hyper[2]), GradScale: 1,
		}
		if norm := float64(report[1]); spec.Clip > 0 && norm > spec.Clip {
			step.GradScale = spec.Clip / norm
		}
		s.elems(len(p))
		return nil
	}
}

// stepReport is three numbers; see the Spec.
func stepReport(in, out []graph.Buffer) error {
	loss, norm, halted := in[0].F32(), in[1].F32(), in[2].F32()
	if !finite(loss[0]) || !finite(norm[0]) {
		halted[0] = 1
	}
	report := out[0].F32()
	report[0], report[1], report[2] = loss[0], norm[0], halted[0]
	loss[0] = 0
	return nil
}

func finite(v float32) bool { return v-v == 0 }
