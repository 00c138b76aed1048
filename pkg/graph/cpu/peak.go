package cpu

import (
	"time"
	"unsafe"
)

// peakRuns and peakTime are how often and how long a peak is measured at least; the best counts, because others use the
// processor too.
const (
	peakRuns = 40
	peakTime = 200 * time.Millisecond
)

// PeakFLOPS measures how many floating-point operations per second all threads together do at most in the instruction that
// products in this precision are made of, with all operands in registers (plain Go: in the L1 cache). A multiplication and
// an addition are two.
func (k *Kernels) PeakFLOPS(bf16 bool) float64 {
	t := &k.gemm.fp32
	if bf16 {
		t = &k.gemm.bf16
	}
	const repeats = 20_000
	var flops float64 // of one thread
	run := func(_, _ int) { flops = t.peak(repeats) }
	return k.best(func() float64 {
		k.pool.Run(k.pool.Threads(), run)
		return flops * float64(k.pool.Threads())
	})
}

// peak does some operations, and says how many.
func (t *tiles) peak(repeats int) float64 {
	var operand, sum [16]float32
	g := gemmArgs{a: unsafe.Pointer(&operand), c: unsafe.Pointer(&sum), k: int64(repeats)}
	if t.isa != Generic {
		return float64(t.peakSIMD(g))
	}
	const lanes = 256
	var a, b [4 * lanes]float32
	for range repeats / lanes {
		mulGeneric(sum[:], 4, a[:], b[:], 4, 4, true)
	}
	return float64(repeats/lanes) * lanes * 2 * 16
}

// bandwidthElems are more floats than any cache holds; they are copied or read in pieces.
const (
	bandwidthElems  = 64 << 20
	bandwidthPieces = 4096
)

// written returns that many floats that were written once: memory that never was is one page of zeros, read from the cache.
func written() []float32 {
	x := make([]float32, bandwidthElems)
	for i := range x {
		x[i] = 1
	}
	return x
}

// PeakBandwidth measures how many bytes per second all threads together read and write at most when they copy arrays that are
// larger than the caches.
func (k *Kernels) PeakBandwidth() float64 {
	from, to := written(), make([]float32, bandwidthElems)
	return k.bandwidth(2, func(_, lo, hi int) { copy(to[lo:hi], from[lo:hi]) })
}

// PeakReadBandwidth measures how many bytes per second all threads together read at most from an array that is larger than the
// caches, looking for its largest element.
func (k *Kernels) PeakReadBandwidth() float64 {
	x, tops := written(), make([]float32, bandwidthPieces)
	return k.bandwidth(1, func(item, lo, hi int) { tops[item] = k.Max(x[lo:hi]) })
}

func (k *Kernels) bandwidth(times float64, work func(item, lo, hi int)) float64 {
	const piece = bandwidthElems / bandwidthPieces
	run := func(item, _ int) { work(item, item*piece, (item+1)*piece) }
	return k.best(func() float64 {
		k.pool.Run(bandwidthPieces, run)
		return times * 4 * bandwidthElems
	})
}

// best repeats work, and returns the most that was done per second.
func (k *Kernels) best(work func() float64) float64 {
	rate := 0.0
	for begin, runs := time.Now(), 0; runs < peakRuns || time.Since(begin) < peakTime; runs++ {
		start := time.Now()
		done := work()
		rate = max(rate, done/time.Since(start).Seconds())
	}
	return rate
}
