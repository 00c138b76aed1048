package cpu

import "meap/pkg/graph"

// Each function here binds one operator: it makes a kernel that keeps its operands in variables, which the pieces of work read.
// Activations may be bf16. Kernels compute in fp32, so each piece of such a tensor has a place in fp32 in the worker's memory,
// small enough to stay in the cache.

// pairwise is a kernel that computes each element of its result from those of two operands.
func (d *Device) pairwise(out graph.Desc, compute func(y, a, b []float32)) graph.Kernel {
	var a, b, y floats
	n, grain := out.Elems(), d.grain(3, out)
	s := newSpread(d.k.pool, func(lo, hi, worker int) {
		p := d.places(worker)
		to := p.result(y, lo, hi)
		compute(to, p.operand(a, lo, hi), p.operand(b, lo, hi))
		d.settle(y, lo, to)
	})
	return func(in, out []graph.Buffer) error {
		a, b, y = floatsOf(in[0]), floatsOf(in[1]), floatsOf(out[0])
		s.run(n, grain)
		return nil
	}
}

func (d *Device) accumulate() graph.Kernel {
	var acc, g []float32
	s := newSpread(d.k.pool, func(lo, hi, _ int) { d.k.Add(acc[lo:hi], acc[lo:hi], g[lo:hi]) })
	return func(in, _ []graph.Buffer) error {
		acc, g = in[0].F32(), in[1].F32()
		s.elems(len(g))
		return nil
	}
}

// cast copies between fp32 and bf16.
func (d *Device) cast() graph.Kernel {
	var x, y floats
	s := newSpread(d.k.pool, func(lo, hi, _ int) {
		switch {
		case x.half != nil && y.half != nil:
			copy(y.half[lo:hi], x.half[lo:hi])
		case x.half != nil:
			d.k.Widen(y.full[lo:hi], x.half[lo:hi])
		case y.half != nil:
			d.k.Narrow(y.half[lo:hi], x.full[lo:hi])
		default:
			copy(y.full[lo:hi], x.full[lo:hi])
		}
	})
	return func(in, out []graph.Buffer) error {
		x, y = floatsOf(in[0]), floatsOf(out[0])
		s.elems(in[0].Elems())
		return nil
	}
}

func (d *Device) swiGLUGrad(out graph.Desc) graph.Kernel {
	var gate, up, dy, dgate, dup floats
	n, grain := out.Elems(), d.grain(5, out)
	s := newSpread(d.k.pool, func(lo, hi, worker int) {
		p := d.places(worker)
		to, toUp := p.result(dgate, lo, hi), p.result(dup, lo, hi)
		d.k.SwiGLUGrad(to, toUp, p.operand(gate, lo, hi), p.operand(up, lo, hi), p.operand(dy, lo, hi))
		d.settle(dgate, lo, to)
		d.settle(dup, lo, toUp)
	})
	return func(in, out []graph.Buffer) error {
		gate, up, dy, dgate, dup = floatsOf(in[0]), floatsOf(in[1]), floatsOf(in[2]), floatsOf(out[0]), floatsOf(out[1])
		s.run(n, grain)
		return nil
	}
}

func (d *Device) rmsNorm(spec graph.RMSNorm, desc graph.Desc) graph.Kernel {
	var x, y floats
	var w, rstd []float32
	n, dim := desc.Shape[0], desc.Shape[1]
	d.reservePlaces(2 * dim)
	s := newSpread(d.k.pool, func(lo, hi, worker int) {
		for r := lo; r < hi; r++ {
			p := d.places(worker)
			to := p.result(y, r*dim, (r+1)*dim)
			rstd[r] = d.k.RMSNormRow(to, p.operand(x, r*dim, (r+1)*dim), w, spec.Eps)
			d.settle(y, r*dim, to)
		}
	})
	return func(in, out []graph.Buffer) error {
		x, w, y, rstd = floatsOf(in[0]), in[1].F32(), floatsOf(out[0]), out[1].F32()
		s.rows(n, dim)
		return nil
	}
}

// normBlock is the number of rows whose contributions to a weight's gradient are summed in one piece; the pieces are then
// joined in order.
const normBlock = 64

func (d *Device) rmsNormGrad(spec graph.RMSNormGrad, desc graph.Desc) graph.Kernel {
	n, dim := desc.Shape[0], desc.Shape[1]
	blocks := ceilDiv(n, normBlock)
	d.reserve(blocks * dim)
	d.reservePlaces(5 * dim)
	var x, dy, dx, addend floats
	var w, rstd, dw, partial []float32
	rows := newSpread(d.k.pool, func(lo, hi, worker int) {
		sum := partial[lo/normBlock*dim:][:dim]
		clear(sum)
		for r := lo; r < hi; r++ {
			p, from, to := d.places(worker), r*dim, (r+1)*dim
			grad := p.result(dx, from, to)
			if spec.Sum {
				alone := p.take(dim) // dx may lie over what is added to it
				d.k.RMSNormGradRow(alone, sum, p.operand(x, from, to), w, p.operand(dy, from, to), rstd[r])
				d.k.Add(grad, alone, p.operand(addend, from, to))
			} else {
				d.k.RMSNormGradRow(grad, sum, p.operand(x, from, to), w, p.operand(dy, from, to), rstd[r])
			}
			d.settle(dx, from, grad)
		}
	})
	join := newSpread(d.k.pool, func(lo, hi, _ int) {
		if !spec.AccW {
			clear(dw[lo:hi])
		}
		for b := range blocks {
			d.k.Add(dw[lo:hi], dw[lo:hi], partial[b*dim+lo:b*dim+hi])
		}
	})
	return func(in, out []graph.Buffer) error {
		x, w, rstd, dy, dx, dw = floatsOf(in[0]), in[1].F32(), in[2].F32(), floatsOf(in[3]), floatsOf(out[0]), out[1].F32()
		if spec.Sum {
			addend = floatsOf(in[4])
		}
		partial = d.k.shared(blocks * dim)
		rows.run(n, normBlock)
		join.run(dim, max(64, pieceElems/max(1, blocks)))
		return nil
	}
}

func (d *Device) columnSum(spec graph.ColumnSum, desc graph.Desc) graph.Kernel {
	var x floats
	var y []float32
	n, width := desc.Shape[0], desc.Shape[1]
	grain := max(64, pieceElems/max(1, n))
	d.reservePlaces(min(grain, width))
	s := newSpread(d.k.pool, func(lo, hi, worker int) {
		if !spec.Acc {
			clear(y[lo:hi])
		}
		for r := range n {
			p := d.places(worker)
			d.k.Add(y[lo:hi], y[lo:hi], p.operand(x, r*width+lo, r*width+hi))
		}
	})
	return func(in, out []graph.Buffer) error {
		x, y = floatsOf(in[0]), out[0].F32()
		s.run(width, grain)
		return nil
	}
}

func (d *Device) rope(spec graph.RoPE, desc graph.Desc) graph.Kernel {
	var x, y floats
	var cos, sin []float32
	var pos []int32
	var half int
	n, width := desc.Shape[0], desc.Shape[1]
	d.reservePlaces(2 * width)
	s := newSpread(d.k.pool, func(lo, hi, worker int) {
		for r := lo; r < hi; r++ {
			at, p := int(pos[r])*half, d.places(worker)
			to := p.result(y, r*width, (r+1)*width)
			d.k.RoPERow(to, p.operand(x, r*width, (r+1)*width), cos[at:at+half], sin[at:at+half], spec.Inverse)
			d.settle(y, r*width, to)
		}
	})
	return func(in, out []graph.Buffer) error {
		x, cos, sin, pos, y = floatsOf(in[0]), in[1].F32(), in[2].F32(), in[3].I32(), floatsOf(out[0])
		half = in[1].Shape[1]
		s.rows(n, width)
		return nil
	}
}

func (d *Device) embedding() graph.Kernel {
	var table []float32
	var y floats
	var ids []int32
	var dim int
	s := newSpread(d.k.pool, func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row := table[int(ids[r])*dim:][:dim]
			if y.half != nil {
				d.k.Narrow(y.half[r*dim:(r+1)*dim], row)
			} else {
				copy(y.full[r*dim:(r+1)*dim], row)
			}
		}
	})
	return func(in, out []graph.Buffer) error {
		table, ids, y, dim = in[0].F32(), in[1].I32(), floatsOf(out[0]), in[0].Shape[1]
		s.rows(len(ids), dim)
		return nil
	}
}

// embeddingGrad gives each piece some columns of the table, so that the rows of one token are summed in order and without
// races whatever the ids are.
func (d *Device) embeddingGrad(spec graph.EmbeddingGrad) graph.Kernel {
	const columns = 64
	d.reservePlaces(columns)
	var dy floats
	var table []float32
	var ids []int32
	var dim int
	s := newSpread(d.k.pool, func(lo, hi, worker int) {
		for r, id := range ids {
			row, p := table[int(id)*dim+lo:int(id)*dim+hi], d.places(worker)
			d.k.Add(row, row, p.operand(dy, r*dim+lo, r*dim+hi))
		}
	})
	zero := newSpread(d.k.pool, func(lo, hi, _ int) { clear(table[lo:hi]) })
	return func(in, out []graph.Buffer) error {
		dy, ids, table, dim = floatsOf(in[0]), in[1].I32(), out[0].F32(), in[0].Shape[1]
		if !spec.Acc {
			zero.elems(len(table))
		}
		s.run(dim, columns)
		return nil
	}
}
