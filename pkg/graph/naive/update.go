package naive

import (
	"math"

	"meap/pkg/graph"
)

func gradNorm[T Float](in, out []arg[T]) {
	total := 0.0
	for i, g := range in {
		sum := 0.0
		for _, v := range g.f {
			sum += float64(v) * float64(v)
		}
		out[1].f[i] = T(sum)
		total += sum
	}
	out[0].f[0] = T(math.Sqrt(total))
}

func stepReport[T Float](in, out []arg[T]) {
	loss, norm, halted := &in[0].f[0], in[1].f[0], &in[2].f[0]
	if !finite(*loss) || !finite(norm) {
		*halted = 1
	}
	copy(out[0].f, []T{*loss, norm, *halted})
	*loss = 0
}

func finite[T Float](v T) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }

func adamW[T Float](s graph.AdamW) kernel[T] {
	return func(in, _ []arg[T]) {
		p, g, m, v := in[0].f, in[1].f, in[2].f, in[3].f
		norm, halted, hyper := float64(in[4].f[1]), in[4].f[2], in[5].f
		if halted != 0 {
			return
		}
		scale := T(1)
		if s.Clip > 0 && norm > s.Clip {
			scale = T(s.Clip / norm)
		}
		lr, c1, c2 := hyper[0], hyper[1], hyper[2]
		// 1-Beta2 is taken in float64: in float32, 1-0.999 is off by 1e-5 of itself.
		b1, b2, a1, a2 := T(s.Beta1), T(s.Beta2), T(1-s.Beta1), T(1-s.Beta2)
		for i := range p {
			gr := g[i] * scale
			m[i] = b1*m[i] + a1*gr
			v[i] = b2*v[i] + a2*gr*gr
			p[i] -= lr * (m[i]*c1/(T(math.Sqrt(float64(v[i]*c2)))+T(s.Epsilon)) + T(s.WeightDecay)*p[i])
			g[i] = 0
		}
	}
}
