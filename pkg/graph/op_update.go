package graph

// Accumulate adds a gradient to its accumulator: acc, g of one shape -> acc. Where g's operator can add by itself, Compile
// lets it, and this one disappears.
type Accumulate struct{}

// GradNorm is the Euclidean norm of all its operands together: g1, ..., gn -> norm [], squares [n] (each operand's sum of
// squares, which tells whose elements are not finite). Sums are taken in float64 and in a fixed order.
type GradNorm struct{}

// StepReport ends a step's gradients: loss [], norm [], halted [] -> report [3] = {loss, norm, halted}. loss and halted are
// written: loss becomes 0, ready for the next step; halted becomes 1 if loss or norm is not finite, and then stays 1, so that
// no later step is taken before the host has read what happened.
type StepReport struct{}

// AdamW updates one parameter (Loshchilov and Hutter 2017, arXiv 1711.05101), after clipping by the global norm:
//
//	p, g, m, v of one shape, report [3] of StepReport, hyper [3] = {learning rate, 1/(1-Beta1^t), 1/(1-Beta2^t)} -> p
//	g' = g * min(1, Clip/norm)                      (Clip = 0: no clipping)
//	m = Beta1 m + (1-Beta1) g';  v = Beta2 v + (1-Beta2) g'²
//	p = p - lr * (m c1 / (sqrt(v c2) + Epsilon) + WeightDecay p)
//	g = 0, ready for the next step's gradients
//
// p, g, m and v are written. If the report says halted nothing is, so a bad step never reaches the weights.
type AdamW struct{ Beta1, Beta2, Epsilon, WeightDecay, Clip float64 }

// Accumulate returns acc after g has been added to it.
func (b *Builder) Accumulate(acc, g *Node) *Node { return b.Apply(Accumulate{}, acc, g) }

// GradNorm returns the norm of all gradients together; Aux(norm, 1) holds each one's sum of squares.
func (b *Builder) GradNorm(grads ...*Node) *Node { return b.Apply(GradNorm{}, grads...) }

// StepReport returns the report [3] of a step; operands as in the Spec.
func (b *Builder) StepReport(loss, norm, halted *Node) *Node {
	return b.Apply(StepReport{}, loss, norm, halted)
}

// AdamW returns p after one step; shapes as in the Spec.
func (b *Builder) AdamW(s AdamW, p, g, m, v, report, hyper *Node) *Node {
	return b.Apply(s, p, g, m, v, report, hyper)
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
func (s StepReport) Infer(in []Desc) []Desc {
	check(s, in, rank(in[0], 0), in[1].Equal(in[0]), in[2].Equal(in[0]))
	return []Desc{Of(in[0].Dtype, 3)}
}

// Infer implements Spec.
func (s AdamW) Infer(in []Desc) []Desc {
	p := in[0]
	check(s, in, in[1].Equal(p), in[2].Equal(p), in[3].Equal(p), in[4].Equal(Of(p.Dtype, 3)), in[5].Equal(in[4]))
	return []Desc{p}
}

// Target implements mutator.
func (AdamW) Target() int { return 0 }
