package graph

// IgnoreLabel marks a position that does not count in the loss (the -100 of PyTorch's cross-entropy).
const IgnoreLabel = -100

// LinearCrossEntropy is the output head and the cross-entropy in one: x [n, dim], head [vocab, dim], labels int32 [n] ->
// nll [n], the negative log-probability of each label under softmax(x headᵀ), 0 where the label is negative. Kernels go
// through the tokens in pieces; the logits of the whole batch never exist.
type LinearCrossEntropy struct{ Precision Precision }

// LinearCrossEntropyGrad is its gradient: x, head, labels, dnll [n] -> dx [n, dim], dhead [vocab, dim] (added to what is
// there if AccHead), nll [n]. It computes the logits anyway, so it gives nll as well and the forward operator need not run in
// training; see Builder.Grad.
type LinearCrossEntropyGrad struct {
	Precision Precision
	AccHead   bool
}

// WeightedSum is scale * sum(x): x [n], scale [] -> []. Kernels sum in float64, in order.
type WeightedSum struct{}

// WeightedSumGrad is its gradient: scale [], dy [] -> [N], every element scale * dy.
type WeightedSumGrad struct{ N int }

// LinearCrossEntropy returns each token's negative log-likelihood; shapes as in the Spec.
func (b *Builder) LinearCrossEntropy(x, head, labels *Node, p Precision) *Node {
	return b.Apply(LinearCrossEntropy{Precision: p}, x, head, labels)
}

// WeightedSum returns scale * sum(x) for x [n] and a scalar scale.
func (b *Builder) WeightedSum(x, scale *Node) *Node { return b.Apply(WeightedSum{}, x, scale) }

// Infer implements Spec.
func (s LinearCrossEntropy) Infer(in []Desc) []Desc {
	x, head, labels := in[0], in[1], in[2]
	check(s, in, rank(x, 2), rank(head, 2), x.Shape[1] == head.Shape[1], labels.Equal(Of(I32, x.Shape[0])))
	return []Desc{Of(x.Dtype, x.Shape[0])}
}

func (LinearCrossEntropy) wrt() []bool { return []bool{true, true, false} }

func (s LinearCrossEntropy) diff(b *Builder, in []*Node, _, dnll *Node) []*Node {
	dx := b.Apply(LinearCrossEntropyGrad{Precision: s.Precision}, in[0], in[1], in[2], dnll)
	return []*Node{dx, b.Aux(dx, 1), nil}
}

// Infer implements Spec.
func (s LinearCrossEntropyGrad) Infer(in []Desc) []Desc {
	n := LinearCrossEntropy{}.Infer(in[:3])[0]
	check(s, in, in[3].Equal(n))
	return []Desc{in[0], in[1], n}
}

// Accumulate implements accumulating for dhead.
func (s LinearCrossEntropyGrad) Accumulate(output int) (Spec, bool) {
	s.AccHead = true
	return s, output == 1
}

// Infer implements Spec.
func (s WeightedSum) Infer(in []Desc) []Desc {
	check(s, in, rank(in[0], 1), rank(in[1], 0))
	return []Desc{Of(in[0].Dtype)}
}

func (WeightedSum) wrt() []bool { return []bool{true, false} }

func (WeightedSum) diff(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(WeightedSumGrad{N: DescOf(in[0]).Shape[0]}, in[1], dy), nil}
}

// Infer implements Spec.
func (s WeightedSumGrad) Infer(in []Desc) []Desc {
	check(s, in, rank(in[0], 0), rank(in[1], 0))
	return []Desc{Of(in[0].Dtype, s.N)}
}
