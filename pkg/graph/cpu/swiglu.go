package cpu

// sigmoid is 1 / (1 + e^-x).
func sigmoid(x float32) float32 { return 1 / (1 + exp32(-x)) }

// SwiGLU computes y = silu(gate) up with silu(x) = x / (1 + e^-x), for vectors of
// the length of y, which may be gate or up. (Shazeer 2020, arXiv 2002.05202.)
func (k *Kernels) SwiGLU(y, gate, up []float32) {
	gate, up = gate[:len(y)], up[:len(y)]
	if k.vec != Generic {
		runVec(k.vec, opSwiGLU, &vecArgs{a: ptr(gate), b: ptr(up), c: ptr(y), n: int64(len(y))})
		return
	}
	for i, g := range gate {
		y[i] = g * sigmoid(g) * up[i]
	}
}

// SwiGLUGrad computes the gradient of SwiGLU from gate, up and dy, for vectors of
// the length of dy; dgate and dup may be any of them.
//
//	dgate = dy up s (1 + gate (1 - s)),  dup = dy gate s,  s = 1 / (1 + e^-gate)
func (k *Kernels) SwiGLUGrad(dgate, dup, gate, up, dy []float32) {
	n := len(dy)
	dgate, dup, gate, up = dgate[:n], dup[:n], gate[:n], up[:n]
	if k.vec != Generic {
		runVec(k.vec, opSwiGLUGrad, &vecArgs{a: ptr(gate), b: ptr(up), c: ptr(dy), d: ptr(dgate), e: ptr(dup), n: int64(n)})
		return
	}
	for i, g := range gate {
		u, d := up[i], dy[i]
		s := sigmoid(g)
		y := g * s
		dgate[i] = d * u * (s + y*(1-s))
		dup[i] = d * y
	}
}
