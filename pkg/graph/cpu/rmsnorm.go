package cpu

import "math"

// RMSNormRow computes one row of y = x rstd w with rstd = 1 / sqrt(mean(x²) +
// eps), and returns rstd, for rows of the length of x. y may be x. (Zhang and
// Sennrich 2019, arXiv 1910.07467.)
func (k *Kernels) RMSNormRow(y, x, w []float32, eps float64) float32 {
	y, w = y[:len(x)], w[:len(x)]
	rstd := float32(1 / math.Sqrt(k.SumSquares(x)/float64(len(x))+eps))
	if k.vec != Generic {
		runVec(k.vec, opScaleMul, &vecArgs{a: ptr(x), b: ptr(w), c: ptr(y), n: int64(len(x)), s: [8]float32{rstd}})
		return rstd
	}
	for i, v := range x {
		y[i] = rstd * v * w[i]
	}
	return rstd
}

// RMSNormGradRow computes the gradient of one row, from x, w, rstd as RMSNormRow
// returned it, and dy. dx is overwritten and may be x or dy; dw is added to, so the sum
// over rows has the order of the calls.
//
//	dx = rstd w dy - x rstd³ mean(x w dy),  dw += rstd x dy
func (k *Kernels) RMSNormGradRow(dx, dw, x, w, dy []float32, rstd float32) {
	n := len(x)
	dx, dw, w, dy = dx[:n], dw[:n], w[:n], dy[:n]
	a := vecArgs{a: ptr(x), b: ptr(w), c: ptr(dy), d: ptr(dx), e: ptr(dw), n: int64(n), s: [8]float32{rstd}}
	factor := func(sum float64) float32 {
		r := float64(rstd)
		return float32(sum * r * r * r / float64(n))
	}
	if k.vec != Generic {
		runVec(k.vec, opDot3, &a)
		a.s[1] = factor(a.sum)
		runVec(k.vec, opRMSNormGrad, &a)
		return
	}
	sum := 0.0
	for i, v := range x {
		sum += float64(v) * float64(w[i]) * float64(dy[i])
	}
	f := factor(sum)
	for i, v := range x {
		d := rstd * dy[i]
		dx[i] = d*w[i] - f*v
		dw[i] += v * d
	}
}
