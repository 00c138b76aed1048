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

func adamW[T Float](s graph.AdamW) kernel[T] {
	return func(in, _ []arg[T]) {
		p, g, m, v := in[0].f, in[1].f, in[2].f, in[3].f
		norm, hyper := float64(in[4].f[0]), in[5].f
		if math.IsNaN(norm) || math.IsInf(norm, 0) {
			return
		}
		scale := T(1)
		if s.Clip > 0 && norm > s.Clip {
			scale = T(s.Clip / norm)
		}
		lr, c1, c2 := hyper[0], hyper[1], hyper[2]
		b1, b2 := T(s.Beta1), T(s.Beta2)
		for i := range p {
			gr := g[i] * scale
			m[i] = b1*m[i] + (1-b1)*gr
			v[i] = b2*v[i] + (1-b2)*gr*gr
			p[i] -= lr * (m[i]*c1/(T(math.Sqrt(float64(v[i]*c2)))+T(s.Epsilon)) + T(s.WeightDecay)*p[i])
			g[i] = 0
		}
	}
}
