package graph

// Accumulate adds a gradient to its accumulator: acc, g of one shape -> acc. Where g's operator can add by itself, Compile
// lets it, and this one disappears.
type Accumulate struct{}

// GradNorm is the Euclidean norm of all its operands together: g1, ..., gn -> norm [], squares [n] (each operand's sum of
// squares, which tells whose elements are not finite). Sums are taken in float64 and in a fixed order.
type GradNorm struct{}

// AdamW updates one parameter (Loshchilov and Hutter 2017, arXiv 1711.05101), after clipping by the global norm:
//
//	p, g, m, v of one shape, norm [], hyper [3] = {learning rate, 1/(1-Beta1^t), 1/(1-Beta2^t)} -> p
//	g' = g * min(1, Clip/norm)                      (Clip = 0: no clipping)
//	m = Beta1 m + (1-Beta1) g';  v = Beta2 v + (1-Beta2) g'²
//	p = p - lr * (m c1 / (sqrt(v c2) + Epsilon) + WeightDecay p)
//	g = 0, ready for the next step's gradients
//
// p, g, m and v are written. If norm is not finite nothing is written, so a bad step never reaches the weights.
type AdamW struct{ Beta1, Beta2, Epsilon, WeightDecay, Clip float64 }

// Accumulate returns acc after g has been added to it.
func (b *Builder) Accumulate(acc, g *Node) *Node { return b.Apply(Accumulate{}, acc, g) }

// GradNorm returns the norm of all gradients together; Aux(norm, 1) holds each one's sum of squares.
func (b *Builder) GradNorm(grads ...*Node) *Node { return b.Apply(GradNorm{}, grads...) }

// AdamW returns p after one step; shapes as in the Spec.
func (b *Builder) AdamW(s AdamW, p, g, m, v, norm, hyper *Node) *Node {
	return b.Apply(s, p, g, m, v, norm, hyper)
}

// Infer implements Spec.
func (s Accumulate) Infer(in []Desc) []Desc {
	check(s, in, in[0].Equal(in[1]))
	return []Desc{in[0]}
}

// Target implements mutator.
func (Accumulate) Target() int { return 0 }

// Infer implements Spec.
func (s GradNorm) Infer(in []Desc) []Desc {
	check(s, in, len(in) > 0)
	return []Desc{Of(in[0].Dtype), Of(in[0].Dtype, len(in))}
}

// Infer implements Spec.
func (s AdamW) Infer(in []Desc) []Desc {
	p := in[0]
	check(s, in, in[1].Equal(p), in[2].Equal(p), in[3].Equal(p), rank(in[4], 0), in[5].Equal(Of(p.Dtype, 3)))
	return []Desc{p}
}

// Target implements mutator.
func (AdamW) Target() int { return 0 }
