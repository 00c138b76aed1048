package graph

// RMSNorm is y = x / sqrt(mean(x²) + Eps) * w over the last axis: x [n, dim], w [dim] -> y [n, dim], rstd [n].
// (Zhang and Sennrich 2019, arXiv 1910.07467.)
type RMSNorm struct{ Eps float64 }

// RMSNormGrad is its gradient: x [n, dim], w [dim], rstd [n], dy [n, dim] -> dx [n, dim], dw [dim]; dw is added to what is
// there if AccW. If Sum, a last operand [n, dim] is added to dx. If Remake, a last result is RMSNorm's [n, dim].
type RMSNormGrad struct{ AccW, Sum, Remake bool }

// RMSNorm normalises the rows of x [n, dim] and scales them by w [dim].
func (b *Builder) RMSNorm(x, w *Node, eps float64) *Node { return b.Apply(RMSNorm{Eps: eps}, x, w) }

// Infer implements Spec.
func (s RMSNorm) Infer(in []Desc) []Desc {
	x, w := in[0], in[1]
	check(s, in, rank(x, 2), rank(w, 1), x.Shape[1] == w.Shape[0])
	return []Desc{x, Of(x.Dtype, x.Shape[0])}
}

func (RMSNorm) cheap() {}

func (RMSNorm) wrt() []bool { return []bool{true, true} }

func (RMSNorm) diff(b *Builder, in []*Node, out, dy *Node) []*Node {
	dx := b.Apply(RMSNormGrad{}, in[0], in[1], b.Aux(out, 1), dy)
	return []*Node{dx, b.Aux(dx, 1)}
}

// Infer implements Spec.
func (s RMSNormGrad) Infer(in []Desc) []Desc {
	x, w, rstd, dy := in[0], in[1], in[2], in[3]
	check(s, in, x.Equal(dy), rank(rstd, 1), rstd.Shape[0] == x.Shape[0])
	if s.Sum {
		check(s, in, in[4].Equal(x))
	}
	if s.Remake {
		return []Desc{x, w, x}
	}
	return []Desc{x, w}
}

func (s RMSNormGrad) remakes() bool { return s.Remake }

func (s RMSNormGrad) withResult(of Spec) (Spec, bool) {
	_, ok := of.(RMSNorm)
	s.Remake = true
	return s, ok
}

func (s RMSNormGrad) sums() bool { return s.Sum }

func (s RMSNormGrad) withSum() (Spec, bool) {
	s.Sum = true
	return s, true
}

// Accumulate implements accumulating for dw.
func (s RMSNormGrad) Accumulate(output int) (Spec, bool) {
	s.AccW = true
	return s, output == 1
}
