package graph

// RoPE turns pairs of each head's elements by an angle that grows with the position (Su et al. 2021, arXiv 2104.09864), in the
// rotate-half form of Llama: element i of the first half of a head is paired with element i of the second.
//
//	x [n, heads*headDim], cos and sin [positions, headDim/2], pos int32 [n] -> y [n, heads*headDim]
//	y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin;  Inverse turns back, which is also the derivative.
//
// The tables hold any base and any scaling of positions, so neither is the operator's business.
type RoPE struct{ Inverse bool }

// RoPE rotates x [n, heads*headDim] to the positions pos [n] by the tables cos, sin [positions, headDim/2].
func (b *Builder) RoPE(x, cos, sin, pos *Node) *Node { return b.Apply(RoPE{}, x, cos, sin, pos) }

// Infer implements Spec.
func (s RoPE) Infer(in []Desc) []Desc {
	x, cos, sin, pos := in[0], in[1], in[2], in[3]
	check(s, in, rank(x, 2), rank(cos, 2), cos.Equal(sin), x.Shape[1]%(2*cos.Shape[1]) == 0, pos.Dtype == I32, rank(pos, 1),
		pos.Shape[0] == x.Shape[0])
	return []Desc{x}
}

func (RoPE) wrt() []bool { return []bool{true, false, false, false} }

func (s RoPE) diff(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(RoPE{Inverse: !s.Inverse}, dy, in[1], in[2], in[3]), nil, nil, nil}
}
