package graph

// Dot is an operator for tests only: the scalar sum(x*w) of two tensors of one shape. It turns any output into a loss whose
// gradient for that output is w, and stands for an operator that is added from outside of the package's list.
type Dot struct{}

// DotGrad is the gradient of Dot for x: w, dy [] -> w dy.
type DotGrad struct{}

func (s Dot) Infer(in []Desc) []Desc {
	check(s, in, in[0].Equal(in[1]))
	return []Desc{Of(in[0].Dtype)}
}

func (Dot) wrt() []bool { return []bool{true, false} }

func (Dot) diff(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(DotGrad{}, in[1], dy), nil}
}

func (s DotGrad) Infer(in []Desc) []Desc { return in[:1] }

// Vague is an operator whose text, and so whose hash, hides its attribute.
type Vague struct{ N int }

func (Vague) Infer(in []Desc) []Desc { return in[:1] }

func (Vague) String() string { return "vague" }

// SpecOf returns the operator that made a node, nil for inputs.
func SpecOf(n *Node) Spec {
	if op, ok := n.Op().(*operator); ok {
		return op.spec
	}
	return nil
}

// ChildrenOf returns a node's operands.
func ChildrenOf(n *Node) []*Node { return children(n) }
