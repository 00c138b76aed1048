package naive

import (
	"math"

	"meap/pkg/graph"
)

// scores fills p[j] with the softmax over the keys from..to (inclusive) of scale q·k, and returns the logsumexp.
func scores[T Float](p, q []T, key func(j int) []T, from, to int, scale T) T {
	top := T(math.Inf(-1))
	for j := from; j <= to; j++ {
		var dot T
		for d, v := range key(j) {
			dot += q[d] * v
		}
		p[j] = dot * scale
		top = max(top, p[j])
	}
	var sum T
	for j := from; j <= to; j++ {
		sum += exp(p[j] - top)
	}
	lse := top + T(math.Log(float64(sum)))
	for j := from; j <= to; j++ {
		p[j] = exp(p[j] - lse)
	}
	return lse
}

func attention[T Float](s graph.Attention) kernel[T] {
	return func(in, out []arg[T]) {
		q, k, v, starts := in[0], in[1].f, in[2].f, in[3].i
		hd, qw, kw := s.HeadDim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
		p := make([]T, s.Seq)
		for b := range q.s[0] / s.Seq {
			for h := range s.Heads {
				kv := h / (s.Heads / s.KVHeads) * hd
				key := func(j int) []T { return k[(b*s.Seq+j)*kw+kv:][:hd] }
				for i := range s.Seq {
					r, from := b*s.Seq+i, int(starts[b*s.Seq+i])
					out[1].f[(b*s.Heads+h)*s.Seq+i] = scores(p, q.f[r*qw+h*hd:][:hd], key, from, i, T(s.Scale()))
					o := out[0].f[r*qw+h*hd:][:hd]
					clear(o)
					for j := from; j <= i; j++ {
						for d, x := range v[(b*s.Seq+j)*kw+kv:][:hd] {
							o[d] += p[j] * x
						}
					}
				}
			}
		}
	}
}

func attentionGrad[T Float](s graph.AttentionGrad) kernel[T] {
	return func(in, out []arg[T]) {
		q, k, v, dout, starts := in[0], in[1].f, in[2].f, in[5].f, in[6].i
		dq, dk, dv := out[0].f, out[1].f, out[2].f
		hd, qw, kw := s.HeadDim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
		scale := T(s.Scale())
		p := make([]T, s.Seq)
		clear(dq)
		clear(dk)
		clear(dv)
		for b := range q.s[0] / s.Seq {
			for h := range s.Heads {
				kv := h / (s.Heads / s.KVHeads) * hd
				at := func(j int) int { return (b*s.Seq+j)*kw + kv }
				key := func(j int) []T { return k[at(j):][:hd] }
				for i := range s.Seq {
					r, from := b*s.Seq+i, int(starts[b*s.Seq+i])
					qi, do := q.f[r*qw+h*hd:][:hd], dout[r*qw+h*hd:][:hd]
					scores(p, qi, key, from, i, scale)
					var mean T // sum over the keys of p dp
					for j := from; j <= i; j++ {
						mean += p[j] * dot(do, v[at(j):][:hd])
					}
					for j := from; j <= i; j++ {
						ds := p[j] * (dot(do, v[at(j):][:hd]) - mean) * scale
						for d := range hd {
							dv[at(j)+d] += p[j] * do[d]
							dk[at(j)+d] += ds * qi[d]
							dq[r*qw+h*hd+d] += ds * k[at(j)+d]
						}
					}
				}
			}
		}
	}
}

func dot[T Float](a, b []T) T {
	var s T
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

func cachedAttention[T Float](s graph.CachedAttention) kernel[T] {
	return func(in, out []arg[T]) {
		q, k, v, kc, vc, past := in[0], in[1].f, in[2].f, in[3], in[4].f, in[5].i
		hd, qw, kw := s.HeadDim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
		capacity := kc.s[1]
		p := make([]T, capacity)
		for b := range kc.s[0] {
			at := (b*capacity + int(past[b])) * kw
			copy(kc.f[at:], k[b*s.Seq*kw:(b+1)*s.Seq*kw])
			copy(vc[at:], v[b*s.Seq*kw:(b+1)*s.Seq*kw])
			for h := range s.Heads {
				kv := h / (s.Heads / s.KVHeads) * hd
				key := func(j int) []T { return kc.f[(b*capacity+j)*kw+kv:][:hd] }
				for i := range s.Seq {
					r, last := b*s.Seq+i, int(past[b])+i
					scores(p, q.f[r*qw+h*hd:][:hd], key, 0, last, T(s.Scale()))
					o := out[0].f[r*qw+h*hd:][:hd]
					clear(o)
					for j := 0; j <= last; j++ {
						for d, x := range vc[(b*capacity+j)*kw+kv:][:hd] {
							o[d] += p[j] * x
						}
					}
				}
			}
		}
	}
}
