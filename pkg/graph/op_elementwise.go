package graph

// Add is the sum of two tensors of one shape: the residual connection, and the sum of a value's gradients.
type Add struct{}

// SwiGLU is silu(gate) * up with silu(x) = x / (1 + exp(-x)): gate, up [n, ffn] -> [n, ffn]. (Shazeer 2020, arXiv 2002.05202.)
type SwiGLU struct{}

// SwiGLUGrad is its gradient: gate, up, dy -> dgate, dup, and if Remake the result of SwiGLU.
type SwiGLUGrad struct{ Remake bool }

// Add returns x + y.
func (b *Builder) Add(x, y *Node) *Node { return b.Apply(Add{}, x, y) }

// SwiGLU returns silu(gate) * up.
func (b *Builder) SwiGLU(gate, up *Node) *Node { return b.Apply(SwiGLU{}, gate, up) }

// Infer implements Spec.
func (s Add) Infer(in []Desc) []Desc {
	check(s, in, in[0].Equal(in[1]))
	return []Desc{in[0]}
}

func (Add) wrt() []bool { return []bool{true, true} }

func (Add) diff(_ *Builder, _ []*Node, _, dy *Node) []*Node { return []*Node{dy, dy} }

// Infer implements Spec.
func (s SwiGLU) Infer(in []Desc) []Desc {
	check(s, in, rank(in[0], 2), in[0].Equal(in[1]))
	return []Desc{in[0]}
}

func (SwiGLU) cheap() {}

func (SwiGLU) wrt() []bool { return []bool{true, true} }

func (SwiGLU) diff(b *Builder, in []*Node, _, dy *Node) []*Node {
	dgate := b.Apply(SwiGLUGrad{}, in[0], in[1], dy)
	return []*Node{dgate, b.Aux(dgate, 1)}
}

// Infer implements Spec.
func (s SwiGLUGrad) Infer(in []Desc) []Desc {
	check(s, in, in[0].Equal(in[1]), in[0].Equal(in[2]))
	if s.Remake {
		return []Desc{in[0], in[1], in[0]}
	}
	return []Desc{in[0], in[1]}
}

func (s SwiGLUGrad) remakes() bool { return s.Remake }

func (s SwiGLUGrad) withResult(of Spec) (Spec, bool) {
	_, ok := of.(SwiGLU)
	s.Remake = true
	return s, ok
}
