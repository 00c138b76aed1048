package cpu

import "testing"

// No product is faster than the peak, and a peak is not far above what products reach. Other work on the machine may slow down one of
// the two measurements, so that a few tries are allowed.
func TestPeakFLOPS(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the time of many products")
	}
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		const m, n, kk = 192, 192, 384
		x, w, y := normals(1, m*kk), normals(2, n*kk), make([]float32, m*n)
		for _, bf16 := range []bool{false, true} {
			var peak, product float64
			fits := false
			for try := 0; try < 5 && !fits; try++ {
				peak = k.PeakFLOPS(bf16)
				product = k.best(func() float64 {
					k.NT(y, x, w, m, n, kk, bf16, false)
					return 2 * m * n * kk
				})
				fits = product/peak > 0.05 && product/peak < 1.1
			}
			if !fits {
				t.Errorf("bf16=%v: a product runs at %.0f GFLOP/s, the peak is %.0f", bf16, product/1e9, peak/1e9)
			}
		}
	})
}
