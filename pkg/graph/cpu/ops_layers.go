package cpu

import "meap/pkg/graph"

// Each function here binds one operator: it makes a kernel that keeps its operands in variables, which the pieces of work read.

func (d *Device) add() graph.Kernel {
	var x, y, out []float32
	s := newSpread(d.k.pool, func(lo, hi int) { d.k.Add(out[lo:hi], x[lo:hi], y[lo:hi]) })
	return func(in, o []graph.Buffer) error {
		x, y, out = in[0].F32(), in[1].F32(), o[0].F32()
		s.elems(len(out))
		return nil
	}
}

func (d *Device) accumulate() graph.Kernel {
	var acc, g []float32
	s := newSpread(d.k.pool, func(lo, hi int) { d.k.Add(acc[lo:hi], acc[lo:hi], g[lo:hi]) })
	return func(in, _ []graph.Buffer) error {
		acc, g = in[0].F32(), in[1].F32()
		s.elems(len(g))
		return nil
	}
}

func (d *Device) swiGLU() graph.Kernel {
	var gate, up, y []float32
	s := newSpread(d.k.pool, func(lo, hi int) { d.k.SwiGLU(y[lo:hi], gate[lo:hi], up[lo:hi]) })
	return func(in, out []graph.Buffer) error {
		gate, up, y = in[0].F32(), in[1].F32(), out[0].F32()
		s.elems(len(y))
		return nil
	}
}

func (d *Device) swiGLUGrad() graph.Kernel {
	var gate, up, dy, dgate, dup []float32
	s := newSpread(d.k.pool, func(lo, hi int) {
		d.k.SwiGLUGrad(dgate[lo:hi], dup[lo:hi], gate[lo:hi], up[lo:hi], dy[lo:hi])
	})
	return func(in, out []graph.Buffer) error {
		gate, up, dy, dgate, dup = in[0].F32(), in[1].F32(), in[2].F32(), out[0].F32(), out[1].F32()
		s.elems(len(dy))
		return nil
	}
}

func (d *Device) rmsNorm(spec graph.RMSNorm) graph.Kernel {
	var x, w, y, rstd []float32
	var dim int
	s := newSpread(d.k.pool, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			rstd[r] = d.k.RMSNormRow(y[r*dim:(r+1)*dim], x[r*dim:(r+1)*dim], w, spec.Eps)
		}
	})
	return func(in, out []graph.Buffer) error {
		x, w, y, rstd, dim = in[0].F32(), in[1].F32(), out[0].F32(), out[1].F32(), in[0].Shape[1]
		s.rows(in[0].Shape[0], dim)
		return nil
	}
}

// normBlock is the number of rows whose contributions to a weight's gradient are summed in one piece; the pieces are then
// joined in order.
const normBlock = 64

func (d *Device) rmsNormGrad(spec graph.RMSNormGrad, x graph.Desc) graph.Kernel {
	n, dim := x.Shape[0], x.Shape[1]
	blocks := ceilDiv(n, normBlock)
	d.reserve(blocks * dim)
	var xs, w, rstd, dy, dx, dw, partial []float32
	rows := newSpread(d.k.pool, func(lo, hi int) {
		sum := partial[lo/normBlock*dim:][:dim]
		clear(sum)
		for r := lo; r < hi; r++ {
			d.k.RMSNormGradRow(dx[r*dim:(r+1)*dim], sum, xs[r*dim:(r+1)*dim], w, dy[r*dim:(r+1)*dim], rstd[r])
		}
	})
	join := newSpread(d.k.pool, func(lo, hi int) {
		if !spec.AccW {
			clear(dw[lo:hi])
		}
		for b := range blocks {
			d.k.Add(dw[lo:hi], dw[lo:hi], partial[b*dim+lo:b*dim+hi])
		}
	})
	return func(in, out []graph.Buffer) error {
		xs, w, rstd, dy, dx, dw = in[0].F32(), in[1].F32(), in[2].F32(), in[3].F32(), out[0].F32(), out[1].F32()
		partial = d.scratch
		rows.run(n, normBlock)
		join.run(dim, max(64, pieceElems/max(1, blocks)))
		return nil
	}
}

func (d *Device) columnSum(spec graph.ColumnSum) graph.Kernel {
	var x, y []float32
	var n, width int
	s := newSpread(d.k.pool, func(lo, hi int) {
		if !spec.Acc {
			clear(y[lo:hi])
		}
		for r := range n {
			d.k.Add(y[lo:hi], y[lo:hi], x[r*width+lo:r*width+hi])
		}
	})
	return func(in, out []graph.Buffer) error {
		x, y, n, width = in[0].F32(), out[0].F32(), in[0].Shape[0], in[0].Shape[1]
		s.run(width, max(64, pieceElems/max(1, n)))
		return nil
	}
}

func (d *Device) rope(spec graph.RoPE) graph.Kernel {
	var x, cos, sin, y []float32
	var pos []int32
	var width, half int
	s := newSpread(d.k.pool, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			at := int(pos[r]) * half
			d.k.RoPERow(y[r*width:(r+1)*width], x[r*width:(r+1)*width], cos[at:at+half], sin[at:at+half], spec.Inverse)
		}
	})
	return func(in, out []graph.Buffer) error {
		x, cos, sin, pos, y = in[0].F32(), in[1].F32(), in[2].F32(), in[3].I32(), out[0].F32()
		width, half = in[0].Shape[1], in[1].Shape[1]
		s.rows(in[0].Shape[0], width)
		return nil
	}
}

func (d *Device) embedding() graph.Kernel {
	var table, y []float32
	var ids []int32
	var dim int
	s := newSpread(d.k.pool, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			copy(y[r*dim:(r+1)*dim], table[int(ids[r])*dim:])
		}
	})
	return func(in, out []graph.Buffer) error {
		table, ids, y, dim = in[0].F32(), in[1].I32(), out[0].F32(), in[0].Shape[1]
		s.rows(len(ids), dim)
		return nil
	}
}

// embeddingGrad gives each piece some columns of the table, so that the rows of one token are summed in order and without
// races whatever the ids are.
func (d *Device) embeddingGrad(spec graph.EmbeddingGrad) graph.Kernel {
	var dy, table []float32
	var ids []int32
	var dim int
	s := newSpread(d.k.pool, func(lo, hi int) {
		for r, id := range ids {
			row := table[int(id)*dim+lo : int(id)*dim+hi]
			d.k.Add(row, row, dy[r*dim+lo:r*dim+hi])
		}
	})
	zero := newSpread(d.k.pool, func(lo, hi int) { clear(table[lo:hi]) })
	return func(in, out []graph.Buffer) error {
		dy, ids, table, dim = in[0].F32(), in[1].I32(), out[0].F32(), in[0].Shape[1]
		if !spec.Acc {
			zero.elems(len(table))
		}
		s.run(dim, 64)
		return nil
	}
}
