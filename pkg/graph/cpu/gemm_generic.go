package cpu

import "math"

// roundBF16 is x rounded to the nearest bf16 value, ties to even. A NaN stays
// one.
func roundBF16(x float32) float32 {
	u := math.Float32bits(x)
	if x != x {
		u |= 1 << 22
	} else {
		u += 0x7fff + u>>16&1
	}
	return math.Float32frombits(u &^ 0xffff)
}

// packGeneric is the specification of the packing kernels without pairs; see
// tiles.pack. x begins at the first element of the panel.
func packGeneric(dst, x []float32, ld int, along bool, width, have, kn int, round bool) {
	clear(dst)
	if along {
		for i := range have {
			d := dst[i:]
			for l, v := range x[i*ld:][:kn] {
				d[l*width] = v
			}
		}
	} else {
		for l := range kn {
			copy(dst[l*width:], x[l*ld:][:have])
		}
	}
	if round {
		for i, v := range dst {
			dst[i] = roundBF16(v)
		}
	}
}

// mulGeneric is the specification of the tile kernels, for panels of 4 rows and
// 4 columns: 16 sums stay in registers while the panels stream past.
func mulGeneric(c []float32, ldc int, a, b []float32, rows, cols int, acc bool) {
	var (
		c00, c01, c02, c03 float32
		c10, c11, c12, c13 float32
		c20, c21, c22, c23 float32
		c30, c31, c32, c33 float32
	)
	for len(a) >= 4 && len(b) >= 4 {
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		x := a[0]
		c00 += x * b0
		c01 += x * b1
		c02 += x * b2
		c03 += x * b3
		x = a[1]
		c10 += x * b0
		c11 += x * b1
		c12 += x * b2
		c13 += x * b3
		x = a[2]
		c20 += x * b0
		c21 += x * b1
		c22 += x * b2
		c23 += x * b3
		x = a[3]
		c30 += x * b0
		c31 += x * b1
		c32 += x * b2
		c33 += x * b3
		a, b = a[4:], b[4:]
	}
	t := [4][4]float32{
		{c00, c01, c02, c03},
		{c10, c11, c12, c13},
		{c20, c21, c22, c23},
		{c30, c31, c32, c33},
	}
	for i := range rows {
		r := c[i*ldc:][:cols]
		if acc {
			for j := range r {
				r[j] += t[i][j]
			}
		} else {
			copy(r, t[i][:])
		}
	}
}
