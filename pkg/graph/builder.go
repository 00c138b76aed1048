package graph

import (
	"fmt"
	"runtime"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Node is a tensor in the making: the output of an operator, or an input.
type Node = G.Node

// Builder collects operators on one Gorgonia expression graph.
type Builder struct {
	g      *G.ExprGraph
	float  Dtype
	oracle Device
	nonce  int

	checkpoints []*Node
}

// NewBuilder starts an empty graph whose floating-point tensors are of type float: F32, or F64 for tests of derivatives.
func NewBuilder(float Dtype) *Builder {
	if float != F32 && float != F64 {
		panic(fmt.Sprintf("graph: a graph computes in fp32 or fp64, not %v", float))
	}
	return &Builder{g: G.NewGraph(), float: float}
}

// Float is the type of the graph's floating-point tensors.
func (b *Builder) Float() Dtype { return b.float }

// ExprGraph is the Gorgonia graph underneath.
func (b *Builder) ExprGraph() *G.ExprGraph { return b.g }

// SetOracle names the host device whose kernels run when Gorgonia's own TapeMachine executes this graph. Programs don't
// need it.
func (b *Builder) SetOracle(d Device) { b.oracle = d }

// Input declares a tensor that is there before the program runs: a parameter, a batch, a scalar. Names are unique.
func (b *Builder) Input(name string, d Desc) *Node {
	for _, n := range b.g.ByName(name) {
		panic(fmt.Sprintf("graph: two inputs are named %q (%v)", name, n))
	}
	if len(d.Shape) == 0 {
		return G.NewScalar(b.g, d.Dtype.tensor(), G.WithName(name))
	}
	return G.NewTensor(b.g, d.Dtype.tensor(), len(d.Shape), G.WithShape(d.Shape...), G.WithName(name))
}

// FloatInput declares an input of the graph's floating-point type.
func (b *Builder) FloatInput(name string, shape ...int) *Node {
	return b.Input(name, Of(b.float, shape...))
}

// IntInput declares an int32 input.
func (b *Builder) IntInput(name string, shape ...int) *Node {
	return b.Input(name, Of(I32, shape...))
}

// DescOf describes the tensor that a node stands for.
func DescOf(n *Node) Desc {
	d := Desc{Dtype: dtypeOf(n.Dtype())}
	if s := n.Shape(); !s.IsScalar() {
		d.Shape = append([]int(nil), s...)
	}
	return d
}

// Apply adds an operator to the graph and returns its primary output.
func (b *Builder) Apply(spec Spec, in ...*Node) *Node {
	descs := make([]Desc, len(in))
	types := make([]hm.Type, len(in))
	for i, n := range in {
		descs[i] = DescOf(n)
		types[i] = n.Type()
	}
	out := infer(spec, descs)
	op := &operator{b: b, spec: spec, in: types, out: typeOf(out[0]), outs: out}
	// Gorgonia merges nodes by a 32-bit hash that says nothing of the children, so two different applications can be taken
	// for one: look at what came back, and if it is another's node, try again under another hash.
	for {
		n, err := G.ApplyOp(op, in...)
		if err != nil {
			panic(fmt.Sprintf("graph: %v on %v: %v", spec, descs, err))
		}
		if o, ok := n.Op().(*operator); ok && o.same(op) && sameNodes(children(n), in) {
			return n
		}
		b.nonce++
		op.nonce = b.nonce
	}
}

// infer applies a shape rule. Rules look at operands and axes that may not be there; that too is said in words.
func infer(spec Spec, in []Desc) []Desc {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case runtime.Error:
			panic(fmt.Sprintf("graph: %T%+v cannot take %v (%v)", spec, spec, in, e))
		default:
			panic(e)
		}
	}()
	return spec.Infer(in)
}

// Aux returns the i-th auxiliary output (from 1) of the operator whose primary output is n.
func (b *Builder) Aux(n *Node, i int) *Node {
	op := n.Op().(*operator)
	return b.Apply(projection{Output: i, Desc: op.outs[i]}, n)
}

// children returns the operands of a node, in order and with repetitions.
func children(n *Node) []*Node {
	it := n.Graph().From(n.ID())
	if it == nil {
		return nil
	}
	out := make([]*Node, 0, max(it.Len(), 0))
	for it.Next() {
		out = append(out, it.Node().(*Node))
	}
	return out
}

func sameNodes(a, b []*Node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func typeOf(d Desc) hm.Type {
	if len(d.Shape) == 0 {
		return d.Dtype.tensor()
	}
	return G.TensorType{Dims: len(d.Shape), Of: d.Dtype.tensor()}
}

func shapeOf(d Desc) tensor.Shape {
	if len(d.Shape) == 0 {
		return tensor.ScalarShape()
	}
	return append(tensor.Shape(nil), d.Shape...)
}
