package graph

// Cast copies a tensor to another floating-point type, rounding to nearest, ties to even: x -> x of type To. Compile inserts it where
// a device stores activations in a type of its own (Storer); graphs don't contain it.
type Cast struct{ To Dtype }

// Infer implements Spec.
func (s Cast) Infer(in []Desc) []Desc {
	check(s, in, in[0].Dtype != I32)
	return []Desc{Of(s.To, in[0].Shape...)}
}
