package cpu

import "meap/pkg/graph"

// shapeOf describes the attention of an operator whose queries are q [batch*seq, heads*head_dim].
func shapeOf(s graph.Attention, q graph.Desc) Attention {
	return Attention{
		Batch: q.Shape[0] / s.Seq, Queries: s.Seq, Keys: s.Seq, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim,
		Scale: float32(s.Scale()), BF16: s.Precision == graph.BF16Operands,
	}
}

func (d *Device) attention(s graph.Attention, q graph.Desc) graph.Kernel {
	a := shapeOf(s, q)
	return func(in, out []graph.Buffer) error {
		a.Starts = in[3].I32()
		d.k.attention.forward(&a, floatsOf(out[0]), out[1].F32(), floatsOf(in[0]), floatsOf(in[1]), floatsOf(in[2]))
		return nil
	}
}

func (d *Device) attentionGrad(s graph.AttentionGrad, q graph.Desc) graph.Kernel {
	a := shapeOf(s.Attention, q)
	return func(in, out []graph.Buffer) error {
		a.Starts = in[6].I32()
		d.k.attention.backward(&a, floatsOf(out[0]), floatsOf(out[1]), floatsOf(out[2]), floatsOf(in[0]), floatsOf(in[1]), floatsOf(in[2]),
			floatsOf(in[3]), in[4].F32(), floatsOf(in[5]))
		return nil
	}
}

func (d *Device) cachedAttention(s graph.CachedAttention, q, cache graph.Desc) graph.Kernel {
	a := shapeOf(s.Attention, q)
	a.Keys = cache.Shape[1]
	rows := s.Seq * cache.Shape[2] // new elements of one sequence
	return func(in, out []graph.Buffer) error {
		keys, values := in[3].F32(), in[4].F32()
		a.Past = in[5].I32()
		for b, past := range a.Past {
			at := (b*a.Keys + int(past)) * cache.Shape[2]
			copy(keys[at:at+rows], in[1].F32()[b*rows:])
			copy(values[at:at+rows], in[2].F32()[b*rows:])
		}
		d.k.AttentionForward(&a, out[0].F32(), nil, in[0].F32(), keys, values)
		return nil
	}
}
