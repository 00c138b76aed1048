package cpu

import "math"

// expUnderflow is the logarithm of the smallest normal number. Below it exp is
// zero in every version: subnormal numbers slow down whatever uses them.
const expUnderflow = -87.3365448

// exp32 is the specification of exp: correctly rounded, but zero for results
// below the normal numbers. The vector kernels are within a relative error of
// 2e-7 of it.
func exp32(x float32) float32 {
	if x < expUnderflow {
		return 0
	}
	return float32(math.Exp(float64(x)))
}

// Exp computes dst = e^src for vectors of the length of src. dst may be src.
func (k *Kernels) Exp(dst, src []float32) {
	dst = dst[:len(src)]
	if k.vec != Generic {
		runVec(k.vec, opExp, &vecArgs{a: ptr(src), b: ptr(dst), n: int64(len(src))})
		return
	}
	for i, v := range src {
		dst[i] = exp32(v)
	}
}

// ExpScale computes dst = scale e^(src - shift): with the logsumexp of a row as
// shift, its softmax times a gradient. dst may be src.
func (k *Kernels) ExpScale(dst, src []float32, shift, scale float32) {
	dst = dst[:len(src)]
	if k.vec != Generic {
		runVec(k.vec, opExpScale, &vecArgs{a: ptr(src), b: ptr(dst), n: int64(len(src)), s: [8]float32{shift, scale}})
		return
	}
	for i, v := range src {
		dst[i] = scale * exp32(v-shift)
	}
}

// ExpSum computes dst = e^(src - shift) and returns the sum of dst, summed in
// float64. With the maximum of the row as shift, log(sum) + shift is its
// logsumexp. dst may be src.
func (k *Kernels) ExpSum(dst, src []float32, shift float32) float64 {
	dst = dst[:len(src)]
	if k.vec != Generic {
		a := vecArgs{a: ptr(src), b: ptr(dst), n: int64(len(src)), s: [8]float32{shift}}
		runVec(k.vec, opExpSum, &a)
		return a.sum
	}
	sum := 0.0
	for i, v := range src {
		dst[i] = exp32(v - shift)
		sum += float64(dst[i])
	}
	return sum
}

// Max returns the largest element of x, minus infinity if there is none. NaN is
// passed over: the exponentials that follow bring it back.
func (k *Kernels) Max(x []float32) float32 {
	top := float32(math.Inf(-1))
	if k.vec != Generic {
		a := vecArgs{a: ptr(x), n: int64(len(x)), s: [8]float32{top}}
		runVec(k.vec, opMax, &a)
		return a.s[0]
	}
	for _, v := range x {
		if v > top {
			top = v
		}
	}
	return top
}
