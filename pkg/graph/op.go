package graph

import (
	"fmt"
	"hash"
	"hash/fnv"
	"reflect"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
)

// Spec says what an operator computes: a comparable struct whose fields are its attributes. Devices choose kernels by its
// type.
type Spec interface {
	// Infer returns the descriptions of the outputs, the primary one first. It panics on operands that don't fit.
	Infer(in []Desc) []Desc
}

// differentiable is a Spec with a derivative.
type differentiable interface {
	Spec
	// diff returns the gradient for each input, given the primary output and its gradient; nil where there is none.
	diff(b *Builder, in []*Node, out, grad *Node) []*Node
	// wrt says for which inputs diff gives a gradient.
	wrt() []bool
}

// mutator is a Spec that writes one of its inputs and hands it on as its primary output.
type mutator interface {
	Spec
	// Target is the index of the input that is also the primary output.
	Target() int
}

// accumulating is a Spec of which some outputs can be added to what is there instead of overwriting it.
type accumulating interface {
	Spec
	// Accumulate returns the Spec that adds to the given output, and whether there is one.
	Accumulate(output int) (Spec, bool)
}

// summing is a Spec of which there is a form with one more operand, the last, that is added to its first result.
type summing interface {
	Spec
	// sums says that this is that form, and withSum gives it; false where these attributes don't go with it.
	sums() bool
	withSum() (Spec, bool)
}

// Sums says that an operator adds its last operand to its first result.
func Sums(op Spec) bool {
	s, ok := op.(summing)
	return ok && s.sums()
}

// cheap is a Spec whose result costs little beside the products that read it, and is computed from operands that its gradient needs
// as well.
type cheap interface {
	Spec
	cheap()
}

// remaking is the gradient of a cheap operator, whose operands it reads first, of which there is a form with the operator's result as its
// last one.
type remaking interface {
	Spec
	// remakes says that this is that form, and withResult gives it; false where it is another operator's gradient.
	remakes() bool
	withResult(of Spec) (Spec, bool)
}

// Remakes says that the last result of an operator, a gradient, is what the operator had made whose gradient it is.
func Remakes(op Spec) bool {
	s, ok := op.(remaking)
	return ok && s.remakes()
}

// projection stands for an auxiliary output of its only operand; it costs nothing.
type projection struct {
	Output int
	Desc   Desc
}

func (p projection) Infer([]Desc) []Desc { return []Desc{p.Desc} }

// operator makes a Spec a node of Gorgonia's graph: gorgonia.SDOp.
type operator struct {
	b     *Builder
	spec  Spec
	in    []hm.Type
	out   hm.Type
	outs  []Desc
	nonce int
}

func (o *operator) same(p *operator) bool {
	return reflect.DeepEqual(o.spec, p.spec) && o.nonce == p.nonce
}

// Arity implements gorgonia.Op.
func (o *operator) Arity() int { return len(o.in) }

// Type implements gorgonia.Op; Gorgonia unifies in place, so each call gives a fresh one.
func (o *operator) Type() hm.Type {
	ts := make([]hm.Type, 0, len(o.in)+1)
	ts = append(ts, o.in...)
	return hm.NewFnType(append(ts, o.out)...)
}

// InferShape implements gorgonia.Op.
func (o *operator) InferShape(...G.DimSizer) (s shape, err error) { return shapeOf(o.outs[0]), nil }

// ReturnsPtr implements gorgonia.Op.
func (o *operator) ReturnsPtr() bool { return true }

// CallsExtern implements gorgonia.Op.
func (o *operator) CallsExtern() bool { return false }

// OverwritesInput implements gorgonia.Op.
func (o *operator) OverwritesInput() int { return -1 }

// WriteHash implements gorgonia.Op: everything that tells two operators apart goes in.
func (o *operator) WriteHash(h hash.Hash) {
	fmt.Fprintf(h, "meap.%T%+v#%d:%v", o.spec, o.spec, o.nonce, o.in)
}

// Hashcode implements gorgonia.Op.
func (o *operator) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

func (o *operator) String() string { return fmt.Sprintf("%T%+v", o.spec, o.spec) }

// DiffWRT implements gorgonia.SDOp.
func (o *operator) DiffWRT(inputs int) []bool {
	if d, ok := o.spec.(differentiable); ok {
		return d.wrt()
	}
	return make([]bool, inputs)
}

// SymDiff implements gorgonia.SDOp.
func (o *operator) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d, ok := o.spec.(differentiable)
	if !ok {
		return nil, fmt.Errorf("graph: %T has no derivative", o.spec)
	}
	return d.diff(o.b, in, out, grad), nil
}
