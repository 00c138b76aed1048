package cpu

import (
	"math"
	"unsafe"
)

// softmaxTile takes one step of the online softmax: the weights e^(scale s - max)
// replace the scores of each row, and the row's sum and output are scaled to its
// new maximum. A row whose range is empty stays exactly as it was.
func (k *Kernels) softmaxTile(w *attentionScratch, rows, cols, width int, scale float32) {
	t := tileArgs{
		s: ptr(w.s), ranges: unsafe.Pointer(&w.ranges), max: ptr(w.max), sum: ptr(w.sum), out: ptr(w.out),
		rows: int64(rows), cols: int64(cols), ld: tileKeys, width: int64(width), scale: scale,
	}
	if k.vec != Generic {
		runTile(k.vec, opSoftmaxTile, &t)
		return
	}
	for r := range rows {
		s := w.s[r*tileKeys:][:cols]
		from, to := int(w.ranges[2*r]), int(w.ranges[2*r+1])
		top := w.max[r]
		for j := from; j < to; j++ {
			if x := scale * s[j]; x > top {
				top = x
			}
		}
		if from >= to || math.IsInf(float64(top), -1) {
			clear(s)
			continue
		}
		var sum float32
		for j, x := range s {
			s[j] = 0
			if from <= j && j < to {
				s[j] = exp32(scale*x - top)
			}
			sum += s[j]
		}
		shrink := exp32(w.max[r] - top)
		w.sum[r] = w.sum[r]*shrink + sum
		w.max[r] = top
		for i, o := range w.out[r*width:][:width] {
			w.out[r*width+i] = shrink * o
		}
	}
}

// softmaxTileGrad replaces the scores by the weights p = e^(scale s - lse), and
// their gradients dp by scale p (dp - delta), which is the gradient of q.k.
func (k *Kernels) softmaxTileGrad(w *attentionScratch, lse, delta []float32, cols int, scale float32) {
	t := tileArgs{
		s: ptr(w.s), dp: ptr(w.dp), ranges: unsafe.Pointer(&w.ranges), lse: ptr(lse), delta: ptr(delta),
		rows: int64(len(lse)), cols: int64(cols), ld: tileKeys, scale: scale,
	}
	if k.vec != Generic {
		runTile(k.vec, opSoftmaxTileGrad, &t)
		return
	}
	for r := range lse {
		s, dp := w.s[r*tileKeys:][:cols], w.dp[r*tileKeys:][:cols]
		from, to := int(w.ranges[2*r]), int(w.ranges[2*r+1])
		for j, x := range s {
			if from <= j && j < to {
				s[j] = exp32(scale*x - lse[r])
				dp[j] = scale * s[j] * (dp[j] - delta[r])
			} else {
				s[j], dp[j] = 0, 0
			}
		}
	}
}
