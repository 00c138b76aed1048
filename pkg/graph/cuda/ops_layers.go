//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"math/bits"
	"slices"
	"unsafe"

	"meap/pkg/graph"
)

// Each function here binds one operator. The arguments that don't change from run to run are filled in once.

func (d *Device) add(s graph.Add, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, in[0], in[1], out[0])
	name, a := "add"+suffix(t), &addArgs{n: int64(in[0].Elems())}
	return func(in, out []graph.Buffer) error {
		a.x, a.y, a.z = in[0].Addr, in[1].Addr, out[0].Addr
		return d.launch(name, d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, err
}

func (d *Device) accumulate(s graph.Accumulate, in []graph.Desc) (graph.Kernel, error) {
	_, err := alike(s, in[0], graph.Of(graph.F32))
	name, a := "accumulate"+suffix(in[1].Dtype), &accumulateArgs{n: int64(in[0].Elems())}
	return func(in, _ []graph.Buffer) error {
		a.acc, a.g = in[0].Addr, in[1].Addr
		return d.launch(name, d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, err
}

func (d *Device) swiGLU(s graph.SwiGLU, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, in[0], in[1], out[0])
	name, a := "swiglu"+suffix(t), &swiGLUArgs{n: int64(in[0].Elems())}
	return func(in, out []graph.Buffer) error {
		a.gate, a.up, a.y = in[0].Addr, in[1].Addr, out[0].Addr
		return d.launch(name, d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, err
}

func (d *Device) swiGLUGrad(s graph.SwiGLUGrad, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, slices.Concat(in, out)...)
	name, a := "swiglu_grad"+suffix(t), &swiGLUGradArgs{n: int64(in[0].Elems())}
	return func(in, out []graph.Buffer) error {
		a.gate, a.up, a.dy, a.dgate, a.dup = in[0].Addr, in[1].Addr, in[2].Addr, out[0].Addr, out[1].Addr
		if s.Remake {
			a.y = out[2].Addr
		}
		return d.launch(name, d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, err
}

func (d *Device) rope(s graph.RoPE, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, in[0], out[0])
	name := "rope" + suffix(t)
	a := &roPEArgs{n: int64(in[0].Shape[0]), width: int32(in[0].Shape[1]), half: int32(in[1].Shape[1])}
	if s.Inverse {
		a.inverse = 1
	}
	elems := in[0].Elems()
	return func(in, out []graph.Buffer) error {
		a.x, a.cos, a.sin, a.pos, a.y = in[0].Addr, in[1].Addr, in[2].Addr, in[3].Addr, out[0].Addr
		return d.launch(name, d.elements(elems), blockThreads, 0, unsafe.Pointer(a))
	}, err
}

func (d *Device) rmsNorm(s graph.RMSNorm, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, in[0], out[0])
	name := "rmsnorm" + suffix(t)
	a := &rmsNormArgs{n: int64(in[0].Shape[0]), dim: int32(in[0].Shape[1]), eps: float32(s.Eps)}
	return func(in, out []graph.Buffer) error {
		a.x, a.w, a.y, a.rstd = in[0].Addr, in[1].Addr, out[0].Addr, out[1].Addr
		return d.launch(name, grid{x: ceilDiv(int(a.n), 4)}, 128, 0, unsafe.Pointer(a))
	}, err
}

// rmsNormGrad sums dw over groups of rows, whose sums are then joined in order.
func (d *Device) rmsNormGrad(s graph.RMSNormGrad, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, in[0], in[3], out[0])
	if err != nil {
		return nil, err
	}
	n, dim := in[0].Shape[0], in[0].Shape[1]
	rows, groups := rmsNormGradRows(n)
	var l layout
	l.add(4 * groups * dim)
	name := "rmsnorm_grad" + suffix(t)
	a := &rmsNormGradArgs{n: int64(n), dim: int32(dim), rows: int32(rows)}
	join := d.joinRows(groups, dim, s.AccW)
	block := 32 * min(8, ceilDiv(dim, 256))
	return func(in, out []graph.Buffer) error {
		a.x, a.w, a.rstd, a.dy, a.dx, a.partial = in[0].Addr, in[1].Addr, in[2].Addr, in[3].Addr, out[0].Addr, d.scratch
		if s.Sum {
			a.more = in[4].Addr
		}
		if s.Remake {
			a.y = out[2].Addr
		}
		if err := d.launch(name, grid{x: groups}, block, 4*dim, unsafe.Pointer(a)); err != nil {
			return err
		}
		return join(d.scratch, out[1].Addr)
	}, d.reserve(s, l.bytes)
}

// joinRows returns what adds up partial sums [rows, width].
func (d *Device) joinRows(rows, width int, acc bool) func(partial, out addr) error {
	a := &reduceRowsArgs{rows: int32(rows), width: int32(width)}
	if acc {
		a.acc = 1
	}
	return func(partial, out addr) error {
		a.partial, a.out = partial, out
		return d.launch("reduce_rows_f32", grid{x: ceilDiv(width, 32)}, 256, 0, unsafe.Pointer(a))
	}
}

func (d *Device) columnSum(s graph.ColumnSum, in []graph.Desc) (graph.Kernel, error) {
	n, width := in[0].Shape[0], in[0].Shape[1]
	rows, groups := columnSumRows(n)
	var l layout
	l.add(4 * groups * width)
	name := "column_sum" + suffix(in[0].Dtype)
	a := &columnSumArgs{n: int64(n), width: int32(width), rows: int32(rows)}
	join := d.joinRows(groups, width, s.Acc)
	return func(in, out []graph.Buffer) error {
		a.dy, a.partial = in[0].Addr, d.scratch
		if err := d.launch(name, grid{x: ceilDiv(width, 256), y: groups}, 256, 0, unsafe.Pointer(a)); err != nil {
			return err
		}
		return join(d.scratch, out[0].Addr)
	}, d.reserve(s, l.bytes)
}

func (d *Device) embedding(s graph.Embedding, in, out []graph.Desc) (graph.Kernel, error) {
	name := "embedding" + suffix(in[0].Dtype)
	var err error
	if in[0].Dtype == graph.F32 && out[0].Dtype == graph.BF16 {
		name = "embedding_f32_bf16"
	} else {
		_, err = alike(s, in[0], out[0])
	}
	a := &embeddingArgs{n: int64(in[1].Elems()), vocab: int32(in[0].Shape[0]), dim: int32(in[0].Shape[1])}
	elems := out[0].Elems()
	return func(in, out []graph.Buffer) error {
		a.table, a.ids, a.y = in[0].Addr, in[1].Addr, out[0].Addr
		return d.launch(name, d.elements(elems), blockThreads, 0, unsafe.Pointer(a))
	}, err
}

// embeddingGrad sorts the tokens by id, so that each row of the table is summed by one warp or block, in an order that only they decide.
func (d *Device) embeddingGrad(s graph.EmbeddingGrad, in, out []graph.Desc) (graph.Kernel, error) {
	n, dim := in[0].Shape[0], in[0].Shape[1]
	passes := max(1, ceilDiv(bits.Len(uint(s.Vocab-1)), sortBits))
	blocks := ceilDiv(n, sortTile)
	var l layout
	keys, tokens, counts := laySort(&l, n)
	name := "embedding_grad" + suffix(in[0].Dtype)
	sort := &sortArgs{n: int32(n), blocks: int32(blocks)}
	a := &embeddingGradArgs{n: int32(n), vocab: int32(s.Vocab), dim: int32(dim)}
	zero := C.size_t(out[0].Bytes())
	return func(in, out []graph.Buffer) error {
		if d.lost != nil {
			return d.lost
		}
		if !s.Acc {
			if err := result(C.meap_zero(d.ctx, C.uint64_t(out[0].Addr), zero, d.compute)); err != nil {
				return d.check(err, "clearing the gradient of the embedding")
			}
		}
		sort.keysIn, sort.tokensIn, sort.counts = in[1].Addr, 0, d.scratch+addr(counts)
		for pass := range passes {
			sort.shift = int32(pass * sortBits)
			sort.keysOut, sort.tokensOut = d.scratch+addr(keys[pass%2]), d.scratch+addr(tokens[pass%2])
			for _, k := range [...]struct {
				name          string
				blocks, block int
			}{{"sort_count", blocks, 256}, {"sort_scan", 1, 1024}, {"sort_scatter", blocks, 256}} {
				if err := d.launch(k.name, grid{x: k.blocks}, k.block, 0, unsafe.Pointer(sort)); err != nil {
					return err
				}
			}
			sort.keysIn, sort.tokensIn = sort.keysOut, sort.tokensOut
		}
		a.dy, a.ids, a.tokens, a.dtable = in[0].Addr, sort.keysIn, sort.tokensIn, out[0].Addr
		return d.launch(name, grid{x: ceilDiv(n, fewPlaces)*ceilDiv(dim, 256) + ceilDiv(n, 8)}, 256, 0, unsafe.Pointer(a))
	}, d.reserve(s, l.bytes)
}
