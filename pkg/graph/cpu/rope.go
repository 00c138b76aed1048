package cpu

// RoPERow turns every head of one row of x to the position whose cosines and
// sines are given, in the rotate-half form: element i of the first half of a
// head pairs with element i of the second. len(cos) and len(sin) are half the
// head size, and the row holds whole heads; y is as long as x and may be x. With
// inverse set it turns back, which is also the gradient. (Su et al. 2021,
// arXiv 2104.09864.)
//
//	y1 = x1 cos - x2 sin,  y2 = x2 cos + x1 sin
func (k *Kernels) RoPERow(y, x, cos, sin []float32, inverse bool) {
	half := len(cos)
	y, sin = y[:len(x)], sin[:half]
	sign := float32(1)
	if inverse {
		sign = -1
	}
	for h := 0; h < len(x); h += 2 * half {
		x1, x2, to := x[h:h+half], x[h+half:h+2*half], y[h:h+2*half]
		if k.vec != Generic {
			runVec(k.vec, opRoPE, &vecArgs{a: ptr(x1), b: ptr(x2), c: ptr(cos), d: ptr(sin), e: ptr(to), n: int64(half), s: [8]float32{sign}})
			continue
		}
		for i, c := range cos {
			a, b, s := x1[i], x2[i], sign*sin[i]
			to[i] = a*c - b*s
			to[half+i] = b*c + a*s
		}
	}
}
