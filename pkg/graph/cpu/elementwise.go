package cpu

// Axpy computes y += alpha x. y must be at least as long as x.
func (k *Kernels) Axpy(y []float32, alpha float32, x []float32) {
	y = y[:len(x)]
	if k.vec != Generic {
		runVec(k.vec, opAxpy, &vecArgs{a: ptr(x), b: ptr(y), n: int64(len(x)), s: [8]float32{alpha}})
		return
	}
	for i, v := range x {
		y[i] += alpha * v
	}
}

// Add computes dst = x + y for vectors of the length of dst. dst may be x or y.
func (k *Kernels) Add(dst, x, y []float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	if k.vec != Generic {
		runVec(k.vec, opAdd, &vecArgs{a: ptr(x), b: ptr(y), c: ptr(dst), n: int64(len(dst))})
		return
	}
	for i := range dst {
		dst[i] = x[i] + y[i]
	}
}

// Scale computes dst = alpha x for vectors of the length of dst. dst may be x.
func (k *Kernels) Scale(dst []float32, alpha float32, x []float32) {
	x = x[:len(dst)]
	if k.vec != Generic {
		runVec(k.vec, opScale, &vecArgs{a: ptr(x), b: ptr(dst), n: int64(len(dst)), s: [8]float32{alpha}})
		return
	}
	for i, v := range x {
		dst[i] = alpha * v
	}
}

// Dot returns the sum of x[i] y[i], summed in float64. y must be at least as
// long as x.
func (k *Kernels) Dot(x, y []float32) float64 {
	y = y[:len(x)]
	if k.vec != Generic {
		a := vecArgs{a: ptr(x), b: ptr(y), n: int64(len(x))}
		runVec(k.vec, opDot, &a)
		return a.sum
	}
	sum := 0.0
	for i, v := range x {
		sum += float64(v) * float64(y[i])
	}
	return sum
}

// SumSquares returns the sum of x[i] squared, summed in float64. To get the same
// sum on any number of threads, cut a long vector at fixed places and join the
// parts in order.
func (k *Kernels) SumSquares(x []float32) float64 { return k.Dot(x, x) }
