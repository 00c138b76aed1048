//go:build gpu && linux

package cuda

import (
	"fmt"
	"unsafe"

	"meap/pkg/graph"
)

// family is a set of attention kernels and how they are launched; see csrc/args.h.
type family struct {
	suffix                 string
	forward, gradQ, gradKV shape
}

// shape is how a kernel is launched: a block of threads for each tile of queries or keys.
type shape struct{ tile, threads, shared int }

// attentionFamily chooses the kernels for operands of a type and a head size. On tensor cores, tensors are of heads of 64 or 128
// elements, so rows are as aligned as those kernels ask.
func (d *Device) attentionFamily(t graph.Dtype, headDim int) (family, error) {
	switch {
	case t == graph.BF16 && headDim == 64 && d.hopper:
		of := func(tile, shared int) shape { return shape{tile, 2*tile + 128, shared} } // MEAP_SM90_THREADS
		return family{"_bf16_64_sm90", of(forwardTile90, forwardShared90), of(gradQTile90, gradQShared90), of(gradKVTile90, gradKVShared90)}, nil
	case t == graph.BF16 && headDim == 64:
		return family{"_bf16_64", shape{forwardTile64, tensorThreads, forwardShared(64)}, shape{gradQTile64, tensorThreads, gradQShared(64)},
			shape{gradKVTile64, tensorThreads, gradKVShared(64)}}, nil
	case t == graph.BF16 && headDim == 128:
		return family{"_bf16_128", shape{forwardTile128, tensorThreads, forwardShared(128)}, shape{gradQTile128, tensorThreads, gradQShared(128)},
			shape{gradKVTile128, tensorThreads, gradKVShared(128)}}, nil
	}
	return generalFamily(t, headDim)
}

// generalFamily is the one for any alignment and heads of up to 256 elements, which does without tensor cores.
func generalFamily(t graph.Dtype, headDim int) (family, error) {
	tile, suffix := 32, suffix(t)
	switch {
	case headDim > 256:
		return family{}, fmt.Errorf("the cuda device has no attention for heads of %d elements; at most 256", headDim)
	case headDim > 128:
		tile, suffix = 16, suffix+"_wide"
	}
	grad := shape{tile, generalThreads, generalGradShared(tile, headDim)}
	return family{suffix, shape{tile, generalThreads, generalForwardShared(tile, headDim)}, grad, grad}, nil
}

// Bytes of dynamic shared memory; the macros of the same names in csrc/args.h.

func forwardShared(headDim int) int { // MEAP_FORWARD_SHARED
	if headDim == 64 {
		return 49152
	}
	return 81920
}

func gradQShared(headDim int) int { // MEAP_GRAD_Q_SHARED
	if headDim == 64 {
		return 65536
	}
	return 98304
}

func gradKVShared(headDim int) int { // MEAP_GRAD_KV_SHARED
	if headDim == 64 {
		return 66560
	}
	return 99328
}

// The same of the kernels for compute capability 9.0.
const (
	forwardShared90 = 131200 // MEAP_FORWARD_SHARED_SM90
	gradQShared90   = 131200 // MEAP_GRAD_Q_SHARED_SM90
	gradKVShared90  = 135296 // MEAP_GRAD_KV_SHARED_SM90
)

func generalForwardShared(tile, d int) int { return 4 * tile * (3*(d+1) + tile + 1) }   // MEAP_GENERAL_FORWARD_SHARED
func generalGradShared(tile, d int) int    { return 4 * tile * (4*(d+1) + 2*(tile+1)) } // MEAP_GENERAL_GRAD_SHARED

// spans returns what summarises the starts of a batch, in spanBytes.
func (d *Device) spans(batch, seq int) func(starts, spans addr) error {
	a, tiles := &attentionSpansArgs{batch: int32(batch), seq: int32(seq)}, ceilDiv(seq, spanQueries)
	return func(starts, spans addr) error {
		a.starts, a.spans = starts, spans
		return d.launch("attention_spans", grid{x: tiles, y: batch}, spanQueries, 0, unsafe.Pointer(a))
	}
}

func (d *Device) attention(s graph.Attention, in, out []graph.Desc) (graph.Kernel, error) {
	t := s.Precision.Operands()
	f, err := d.attentionFamily(t, s.HeadDim)
	if err != nil {
		return nil, err
	}
	batch := in[0].Shape[0] / s.Seq
	var l layout
	ins := []*converted{d.convert(&l, in[0], t), d.convert(&l, in[1], t), d.convert(&l, in[2], t)}
	result := d.convert(&l, out[0], t)
	spans, spansAt := d.spans(batch, s.Seq), l.add(spanBytes(batch, s.Seq))
	a := &attentionArgs{qStride: int64(in[0].Shape[1]), kvStride: int64(in[1].Shape[1]), batch: int32(batch), seq: int32(s.Seq),
		heads: int32(s.Heads), kvHeads: int32(s.KVHeads), headDim: int32(s.HeadDim), scale: float32(s.Scale())}
	g := grid{x: s.Heads * batch, y: ceilDiv(s.Seq, f.forward.tile)}
	return func(in, out []graph.Buffer) error {
		if err := readAll(ins, in, &a.q, &a.k, &a.v); err != nil {
			return err
		}
		a.starts, a.spans, a.out, a.lse = in[3].Addr, d.scratch+addr(spansAt), result.address(out[0]), out[1].Addr
		if err := spans(a.starts, a.spans); err != nil {
			return err
		}
		if err := d.launch("attention"+f.suffix, g, f.forward.threads, f.forward.shared, unsafe.Pointer(a)); err != nil {
			return err
		}
		return result.write(out[0])
	}, d.reserve(s, l.bytes)
}

func (d *Device) attentionGrad(s graph.AttentionGrad, in, out []graph.Desc) (graph.Kernel, error) {
	t := s.Precision.Operands()
	f, err := d.attentionFamily(t, s.HeadDim)
	if err != nil {
		return nil, err
	}
	batch := in[0].Shape[0] / s.Seq
	var l layout
	q, k, v := d.convert(&l, in[0], t), d.convert(&l, in[1], t), d.convert(&l, in[2], t)
	o, do := d.convert(&l, in[3], t), d.convert(&l, in[5], t)
	results := []*converted{d.convert(&l, out[0], t), d.convert(&l, out[1], t), d.convert(&l, out[2], t)}
	spans, spansAt, deltaAt := d.spans(batch, s.Seq), l.add(spanBytes(batch, s.Seq)), l.add(4*batch*s.Heads*s.Seq)
	delta := &attentionDeltaArgs{qStride: int64(in[0].Shape[1]), batch: int32(batch), seq: int32(s.Seq), heads: int32(s.Heads), headDim: int32(s.HeadDim)}
	a := &attentionGradArgs{qStride: int64(in[0].Shape[1]), kvStride: int64(in[1].Shape[1]), batch: int32(batch), seq: int32(s.Seq),
		heads: int32(s.Heads), kvHeads: int32(s.KVHeads), headDim: int32(s.HeadDim), scale: float32(s.Scale())}
	return func(in, out []graph.Buffer) error {
		if err := readAll([]*converted{q, k, v, o, do}, []graph.Buffer{in[0], in[1], in[2], in[3], in[5]}, &a.q, &a.k, &a.v, &delta.out, &a.dout); err != nil {
			return err
		}
		a.lse, a.delta, a.starts, a.spans = in[4].Addr, d.scratch+addr(deltaAt), in[6].Addr, d.scratch+addr(spansAt)
		a.dq, a.dk, a.dv = results[0].address(out[0]), results[1].address(out[1]), results[2].address(out[2])
		delta.dout, delta.delta = a.dout, a.delta
		if err := spans(a.starts, a.spans); err != nil {
			return err
		}
		for _, k := range [...]struct {
			name          string
			g             grid
			block, shared int
			args          unsafe.Pointer
		}{
			{"attention_delta" + suffix(t), grid{x: s.Heads * batch, y: ceilDiv(s.Seq, deltaTile)}, 256, 0, unsafe.Pointer(delta)},
			{"attention_grad_q" + f.suffix, grid{x: s.Heads * batch, y: ceilDiv(s.Seq, f.gradQ.tile)}, f.gradQ.threads, f.gradQ.shared, unsafe.Pointer(a)},
			{"attention_grad_kv" + f.suffix, grid{x: s.KVHeads * batch, y: ceilDiv(s.Seq, f.gradKV.tile)}, f.gradKV.threads, f.gradKV.shared, unsafe.Pointer(a)},
		} {
			if err := d.launch(k.name, k.g, k.block, k.shared, k.args); err != nil {
				return err
			}
		}
		for i, r := range results {
			if err := r.write(out[i]); err != nil {
				return err
			}
		}
		return nil
	}, d.reserve(s, l.bytes)
}

// cachedAttention computes in the type of the caches, whatever the precision: a generator's are fp32.
func (d *Device) cachedAttention(s graph.CachedAttention, in, out []graph.Desc) (graph.Kernel, error) {
	t, err := alike(s, in[0], in[1], in[2], in[3], in[4], out[0])
	if err == nil && t != graph.F32 {
		err = fmt.Errorf("the cuda device keeps caches in fp32, not in %v", t)
	}
	if err != nil {
		return nil, err
	}
	f, err := generalFamily(t, s.HeadDim)
	if err != nil {
		return nil, err
	}
	batch := in[0].Shape[0] / s.Seq
	write := &cacheWriteArgs{batch: int32(batch), seq: int32(s.Seq), capacity: int32(in[3].Shape[1]), width: int32(in[3].Shape[2])}
	a := &cachedAttentionArgs{batch: int32(batch), seq: int32(s.Seq), heads: int32(s.Heads), kvHeads: int32(s.KVHeads), headDim: int32(s.HeadDim),
		capacity: write.capacity, splits: 1, scale: float32(s.Scale())}
	elems := in[1].Elems()
	return func(in, out []graph.Buffer) error {
		write.k, write.v, write.kcache, write.vcache, write.past = in[1].Addr, in[2].Addr, in[3].Addr, in[4].Addr, in[5].Addr
		if err := d.launch("cache_write"+suffix(t), d.elements(elems), blockThreads, 0, unsafe.Pointer(write)); err != nil {
			return err
		}
		a.q, a.kcache, a.vcache, a.past, a.out = in[0].Addr, in[3].Addr, in[4].Addr, in[5].Addr, out[0].Addr
		return d.launch("cached_attention"+f.suffix, grid{x: s.Heads * batch, y: ceilDiv(s.Seq, f.forward.tile)}, f.forward.threads, f.forward.shared, unsafe.Pointer(a))
	}, nil
}
