package graph

import "math"

// Attention is causal grouped-query attention with the rows of a batch one after the other, n = batch*seq:
//
//	q [n, Heads*HeadDim], k and v [n, KVHeads*HeadDim], starts int32 [n]
//	  -> out [n, Heads*HeadDim], lse [batch*Heads*seq]
//
// Query i of a row sees the keys starts[i]..i of that row: starts is 0 for plain causal attention, and the first token of its
// document where documents must not see each other. Head h reads kv head h / (Heads/KVHeads). Scores are scaled by
// 1/sqrt(HeadDim). lse is the natural logarithm of the sum of the exponentials of a query's scaled scores, which the gradient
// needs. No kernel stores seq x seq.
type Attention struct {
	Seq                     int
	Heads, KVHeads, HeadDim int
	Precision               Precision
}

// AttentionGrad is its gradient: q, k, v, out, lse, dout, starts -> dq, dk, dv, with shapes as in Attention.
type AttentionGrad struct{ Attention }

// CachedAttention is attention for generation: the new tokens' keys and values are written into a cache, and each new query
// sees everything in the cache up to itself.
//
//	q [batch*Seq, Heads*HeadDim], k and v [batch*Seq, KVHeads*HeadDim] of the Seq new tokens of each sequence,
//	kcache and vcache [batch, capacity, KVHeads*HeadDim] (written), past int32 [batch]
//	  -> out [batch*Seq, Heads*HeadDim]
//
// Token i of sequence s goes to cache position past[s]+i, which must be below the capacity.
type CachedAttention struct{ Attention }

// Scale is the factor on the scores.
func (s Attention) Scale() float64 { return 1 / math.Sqrt(float64(s.HeadDim)) }

// Attention returns causal attention; shapes as in the Spec.
func (b *Builder) Attention(s Attention, q, k, v, starts *Node) *Node {
	return b.Apply(s, q, k, v, starts)
}

// CachedAttention returns attention over a cache; shapes as in the Spec.
func (b *Builder) CachedAttention(s Attention, q, k, v, kcache, vcache, past *Node) *Node {
	return b.Apply(CachedAttention{s}, q, k, v, kcache, vcache, past)
}

func (s Attention) fits(q, k, v Desc) bool {
	return rank(q, 2) && s.Heads > 0 && s.KVHeads > 0 && s.Heads%s.KVHeads == 0 && s.Seq > 0 &&
		q.Shape[0]%s.Seq == 0 && q.Shape[1] == s.Heads*s.HeadDim &&
		k.Equal(Of(q.Dtype, q.Shape[0], s.KVHeads*s.HeadDim)) && v.Equal(k)
}

// Infer implements Spec.
func (s Attention) Infer(in []Desc) []Desc {
	q, k, v, starts := in[0], in[1], in[2], in[3]
	check(s, in, s.fits(q, k, v), starts.Equal(Of(I32, q.Shape[0])))
	return []Desc{q, Of(q.Dtype, q.Shape[0]*s.Heads)}
}

func (Attention) wrt() []bool { return []bool{true, true, true, false} }

func (s Attention) diff(b *Builder, in []*Node, out, dout *Node) []*Node {
	dq := b.Apply(AttentionGrad{s}, in[0], in[1], in[2], out, b.Aux(out, 1), dout, in[3])
	return []*Node{dq, b.Aux(dq, 1), b.Aux(dq, 2), nil}
}

// Infer implements Spec.
func (s AttentionGrad) Infer(in []Desc) []Desc {
	check(s, in, s.fits(in[0], in[1], in[2]), in[3].Equal(in[0]), in[5].Equal(in[0]), rank(in[4], 1),
		in[4].Shape[0] == in[0].Shape[0]*s.Heads, in[6].Equal(Of(I32, in[0].Shape[0])))
	return []Desc{in[0], in[1], in[2]}
}

// Infer implements Spec.
func (s CachedAttention) Infer(in []Desc) []Desc {
	q, kc := in[0], in[3]
	check(s, in, s.fits(q, in[1], in[2]), rank(kc, 3), kc.Equal(in[4]), kc.Shape[0] == q.Shape[0]/s.Seq,
		kc.Shape[2] == s.KVHeads*s.HeadDim, in[5].Equal(Of(I32, kc.Shape[0])))
	return []Desc{q}
}

// wrt and diff say that generation is not trained through: without them the embedded Attention's would be promoted.
func (s CachedAttention) wrt() []bool { return make([]bool, 6) }

func (s CachedAttention) diff(*Builder, []*Node, *Node, *Node) []*Node {
	panic("graph: CachedAttention has no derivative")
}

func (s AttentionGrad) wrt() []bool { return make([]bool, 7) }

func (s AttentionGrad) diff(*Builder, []*Node, *Node, *Node) []*Node {
	panic("graph: AttentionGrad has no derivative")
}
