package cpu

import (
	"math"

	"meap/pkg/graph"
)

// The memory for the logits that exist at a time, at most, and so much that less is of no use.
const (
	logitsBytes    = 64 << 20
	fewLogitsBytes = 8 << 20
)

// logitRows is how many tokens are worked on at a time. More mean fewer passes over the head and its gradient, which is as large, and more
// memory: both the passes and the memory grow with the root of n. Pieces are alike, and large enough for a product to be efficient; where
// there are several, each has whole panels of mr rows.
func logitRows(n, vocab, mr int) int {
	row := 4 * max(1, vocab)
	rows := max(64, fewLogitsBytes/row, min(logitsBytes/row, int(4.2*math.Sqrt(float64(n)))))
	if n <= rows {
		return n
	}
	return ceilDiv(ceilDiv(n, ceilDiv(n, rows)), mr) * mr
}

// logitRows is that for products of a precision.
func (d *Device) logitRows(n, vocab int, p graph.Precision) int {
	if p == graph.BF16Operands {
		return logitRows(n, vocab, d.k.gemm.bf16.mr)
	}
	return logitRows(n, vocab, d.k.gemm.fp32.mr)
}

// crossEntropy goes through the tokens in pieces, each a product with the head, then row by row.
func (d *Device) crossEntropy(s graph.LinearCrossEntropy, x, head graph.Desc) graph.Kernel {
	n, dim, vocab := x.Shape[0], x.Shape[1], head.Shape[0]
	step := d.logitRows(n, vocab, s.Precision)
	d.reserve(step * vocab)
	d.k.gemm.reserve(step, vocab, dim, s.Precision == graph.BF16Operands, false)
	var logits, nll []float32
	var labels []int32
	rows := newSpread(d.k.pool, func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			nll[r] = 0
			if labels[r] >= 0 {
				nll[r], _ = d.negativeLogLikelihood(logits[r*vocab:(r+1)*vocab], labels[r])
			}
		}
	})
	return func(in, out []graph.Buffer) error {
		logits = d.k.shared(step * vocab)
		xs, w := mat(in[0], false), mat(in[1], true)
		for first := 0; first < n; first += step {
			m := min(step, n-first)
			labels, nll = in[2].I32()[first:first+m], out[0].F32()[first:first+m]
			d.k.Mul(logits, vocab, xs.from(first), w, m, vocab, dim, s.Precision == graph.BF16Operands, false)
			rows.rows(m, vocab)
		}
		return nil
	}
}

// negativeLogLikelihood replaces a row of logits z by the exponentials of z - max(z), and returns the label's negative
// log-probability and the sum of the exponentials.
func (d *Device) negativeLogLikelihood(z []float32, label int32) (nll float32, sum float64) {
	top, own := d.k.Max(z), z[label]
	sum = d.k.ExpSum(z, z, top)
	return float32(math.Log(sum) + float64(top) - float64(own)), sum
}

// crossEntropyGrad turns each piece's logits into their gradient in place and multiplies them with the head and with the
// tokens.
func (d *Device) crossEntropyGrad(s graph.LinearCrossEntropyGrad, x, head graph.Desc) graph.Kernel {
	n, dim, vocab := x.Shape[0], x.Shape[1], head.Shape[0]
	step := d.logitRows(n, vocab, s.Precision)
	d.reserve(step * vocab)
	bf16 := s.Precision == graph.BF16Operands
	d.k.gemm.reserve(step, vocab, dim, bf16, false)
	d.k.gemm.reserve(step, dim, vocab, bf16, x.Dtype == graph.BF16)
	d.k.gemm.reserve(vocab, dim, step, bf16, false)
	var logits, dnll, nll []float32
	var labels []int32
	rows := newSpread(d.k.pool, func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			z := logits[r*vocab : (r+1)*vocab]
			nll[r] = 0
			if labels[r] < 0 {
				clear(z)
				continue
			}
			var sum float64
			nll[r], sum = d.negativeLogLikelihood(z, labels[r])
			d.k.Scale(z, float32(float64(dnll[r])/sum), z)
			z[labels[r]] -= dnll[r]
		}
	})
	return func(in, out []graph.Buffer) error {
		logits = d.k.shared(step * vocab)
		xs, w, wT, dx := mat(in[0], false), mat(in[1], false), mat(in[1], true), floatsOf(out[0])
		z := Mat{Data: logits, LD: vocab}
		for first := 0; first < n; first += step {
			m := min(step, n-first)
			labels, dnll, nll = in[2].I32()[first:first+m], in[3].F32()[first:first+m], out[2].F32()[first:first+m]
			d.k.Mul(logits, vocab, xs.from(first), wT, m, vocab, dim, bf16, false)
			rows.rows(m, vocab)
			d.k.mulFrom(dx.from(first*dim), dim, Mat{}, z, w, m, dim, vocab, bf16)
			d.k.Mul(out[1].F32(), dim, Mat{Data: logits, LD: vocab, Trans: true}, xs.from(first), vocab, dim, m, bf16, s.AccHead || first > 0)
		}
		return nil
	}
}

func weightedSum(in, out []graph.Buffer) error {
	sum := 0.0
	for _, v := range in[0].F32() {
		sum += float64(v)
	}
	out[0].F32()[0] = float32(sum * float64(in[1].F32()[0]))
	return nil
}

func weightedSumGrad(in, out []graph.Buffer) error {
	g := in[0].F32()[0] * in[1].F32()[0]
	dst := out[0].F32()
	for i := range dst {
		dst[i] = g
	}
	return nil
}
