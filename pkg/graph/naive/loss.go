package naive

import (
	"math"

	"meap/pkg/graph"
)

// logits fills z with x·headᵀ for one token and returns their logsumexp.
func logits[T Float](z, x []T, head arg[T], p graph.Precision) T {
	dim := head.s[1]
	top := T(math.Inf(-1))
	for c := range z {
		var sum T
		for k := range dim {
			sum += round(x[k], p) * round(head.f[c*dim+k], p)
		}
		z[c] = sum
		top = max(top, sum)
	}
	var sum T
	for _, v := range z {
		sum += exp(v - top)
	}
	return top + T(math.Log(float64(sum)))
}

func crossEntropy[T Float](s graph.LinearCrossEntropy) kernel[T] {
	return func(in, out []arg[T]) {
		x, head, dim := in[0].f, in[1], in[1].s[1]
		z := make([]T, head.s[0])
		for r, label := range in[2].i {
			out[0].f[r] = 0
			if label >= 0 {
				out[0].f[r] = logits(z, x[r*dim:(r+1)*dim], head, s.Precision) - z[label]
			}
		}
	}
}

func crossEntropyGrad[T Float](s graph.LinearCrossEntropyGrad) kernel[T] {
	return func(in, out []arg[T]) {
		x, head, dnll, dim := in[0].f, in[1], in[3].f, in[1].s[1]
		dx, dhead, nll := out[0].f, out[1].f, out[2].f
		z := make([]T, head.s[0])
		clear(dx)
		if !s.AccHead {
			clear(dhead)
		}
		clear(nll)
		for r, label := range in[2].i {
			if label < 0 {
				continue
			}
			xr := x[r*dim : (r+1)*dim]
			lse := logits(z, xr, head, s.Precision)
			nll[r] = lse - z[label]
			for c := range z {
				dz := exp(z[c] - lse)
				if c == int(label) {
					dz--
				}
				dz = round(dz*dnll[r], s.Precision)
				for k := range dim {
					dx[r*dim+k] += dz * round(head.f[c*dim+k], s.Precision)
					dhead[c*dim+k] += dz * round(xr[k], s.Precision)
				}
			}
		}
	}
}
