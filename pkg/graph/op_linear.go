package graph

import "fmt"

// Precision is how a matrix product treats its operands.
type Precision uint8

const (
	// FP32 multiplies the operands as they are.
	FP32 Precision = iota
	// BF16Operands rounds both operands to bfloat16 (nearest, ties to even) and sums in fp32, as autocast does.
	BF16Operands
)

// Operands is the type that products of this precision round their operands to.
func (p Precision) Operands() Dtype {
	if p == BF16Operands {
		return BF16
	}
	return F32
}

func (p Precision) String() string { return [...]string{"fp32", "bf16"}[p] }

// Linear is y = x Wᵀ + bias: x [n, in], W [out, in], bias [out] if Bias -> y [n, out]. If Sum, not with Bias, a last operand [n, out] is
// added.
type Linear struct {
	Precision Precision
	Bias      bool
	Sum       bool
}

// LinearDX is the gradient of Linear for its input: dy [n, out], W [out, in] -> dx [n, in] = dy W, plus a last operand [n, in] if Sum.
type LinearDX struct {
	Precision Precision
	Sum       bool
}

// LinearDW is the gradient of Linear for its weight: dy [n, out], x [n, in] -> dW [out, in] = dyᵀ x, added to what is there
// if Acc.
type LinearDW struct {
	Precision Precision
	Acc       bool
}

// ColumnSum is the gradient of a bias: dy [n, out] -> [out], added to what is there if Acc.
type ColumnSum struct{ Acc bool }

// Linear returns x Wᵀ, plus bias unless that is nil. Shapes as in the Spec.
func (b *Builder) Linear(x, w, bias *Node, p Precision) *Node {
	if bias != nil {
		return b.Apply(Linear{Precision: p, Bias: true}, x, w, bias)
	}
	return b.Apply(Linear{Precision: p}, x, w)
}

// Infer implements Spec.
func (s Linear) Infer(in []Desc) []Desc {
	x, w := in[0], in[1]
	check(s, in, rank(x, 2), rank(w, 2), x.Shape[1] == w.Shape[1], x.Dtype == w.Dtype)
	if s.Bias {
		check(s, in, !s.Sum, rank(in[2], 1), in[2].Shape[0] == w.Shape[0])
	}
	y := Of(x.Dtype, x.Shape[0], w.Shape[0])
	if s.Sum {
		check(s, in, in[2].Equal(y))
	}
	return []Desc{y}
}

func (s Linear) sums() bool { return s.Sum }

func (s Linear) withSum() (Spec, bool) {
	s.Sum = true
	return s, !s.Bias
}

func (s Linear) wrt() []bool {
	if s.Bias {
		return []bool{true, true, true}
	}
	return []bool{true, true}
}

func (s Linear) diff(b *Builder, in []*Node, _, dy *Node) []*Node {
	// The weight's gradient comes first: it is the last to read the input, whose memory is then free for the input's gradient.
	dw := b.Apply(LinearDW{Precision: s.Precision}, dy, in[0])
	grads := []*Node{b.Apply(LinearDX{Precision: s.Precision}, dy, in[1]), dw}
	if s.Bias {
		grads = append(grads, b.Apply(ColumnSum{}, dy))
	}
	return grads
}

// Infer implements Spec.
func (s LinearDX) Infer(in []Desc) []Desc {
	dy, w := in[0], in[1]
	check(s, in, rank(dy, 2), rank(w, 2), dy.Shape[1] == w.Shape[0])
	dx := Of(dy.Dtype, dy.Shape[0], w.Shape[1])
	if s.Sum {
		check(s, in, in[2].Equal(dx))
	}
	return []Desc{dx}
}

func (s LinearDX) sums() bool { return s.Sum }

func (s LinearDX) withSum() (Spec, bool) {
	s.Sum = true
	return s, true
}

// Infer implements Spec.
func (s LinearDW) Infer(in []Desc) []Desc {
	dy, x := in[0], in[1]
	check(s, in, rank(dy, 2), rank(x, 2), dy.Shape[0] == x.Shape[0])
	return []Desc{Of(dy.Dtype, dy.Shape[1], x.Shape[1])}
}

// Accumulate implements accumulating.
func (s LinearDW) Accumulate(int) (Spec, bool) {
	s.Acc = true
	return s, true
}

// Infer implements Spec.
func (s ColumnSum) Infer(in []Desc) []Desc {
	check(s, in, rank(in[0], 2))
	return []Desc{Of(in[0].Dtype, in[0].Shape[1])}
}

// Accumulate implements accumulating.
func (s ColumnSum) Accumulate(int) (Spec, bool) {
	s.Acc = true
	return s, true
}

func rank(d Desc, n int) bool { return len(d.Shape) == n }

// check panics when one of the conditions on an operator's operands doesn't hold.
func check(s Spec, in []Desc, conditions ...bool) {
	for i, ok := range conditions {
		if !ok {
			panic(fmt.Sprintf("graph: %T%+v cannot take %v (condition %d of its shape rule)", s, s, in, i+1))
		}
	}
}
