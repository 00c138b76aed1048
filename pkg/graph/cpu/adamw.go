package cpu

import "math"

// AdamWStep is what one step of AdamW is the same for in every parameter.
type AdamWStep struct {
	LearningRate, Beta1, Beta2, Epsilon, WeightDecay float64
	Correct1, Correct2                               float64 // 1/(1-Beta1^t) and 1/(1-Beta2^t) of step t, from 1
	GradScale                                        float64 // factor on the gradients: clipping
}

// AdamW takes one step for parameters p with gradients g and moments m and v, all
// of the length of p, in one pass. p, m and v are written, and g becomes zero,
// ready for the next step's sum. (Loshchilov and Hutter 2017, arXiv 1711.05101.)
//
//	g' = GradScale g,  m = Beta1 m + (1-Beta1) g',  v = Beta2 v + (1-Beta2) g'²
//	p -= LearningRate (Correct1 m / (sqrt(Correct2 v) + Epsilon) + WeightDecay p)
func (k *Kernels) AdamW(p, g, m, v []float32, s AdamWStep) {
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	f := [8]float32{
		float32(s.GradScale), float32(s.Beta1), float32(1 - s.Beta1), float32(s.Beta2), float32(1 - s.Beta2),
		float32(s.LearningRate * s.Correct1), float32(s.Correct2), float32(s.Epsilon),
	}
	decay := s.LearningRate * s.WeightDecay
	if k.vec != Generic {
		runVec(k.vec, opAdamW, &vecArgs{a: ptr(p), b: ptr(g), c: ptr(m), d: ptr(v), n: int64(len(p)), s: f, sum: decay})
		return
	}
	shrink := float32(decay)
	for i, w := range p {
		grad := f[0] * g[i]
		m1 := f[1]*m[i] + f[2]*grad
		m2 := f[3]*v[i] + f[4]*(grad*grad)
		step := f[5] * m1 / (float32(math.Sqrt(float64(m2*f[6]))) + f[7])
		p[i] = w - shrink*w - step
		g[i], m[i], v[i] = 0, m1, m2
	}
}
