package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// This file lets Gorgonia's TapeMachine run our operators, which makes it the oracle for order and planning in tests.

type shape = tensor.Shape

// multi carries auxiliary outputs through the TapeMachine beside the primary one.
type multi struct {
	*tensor.Dense
	aux []Buffer
}

// Do implements gorgonia.Op with the oracle device's kernel.
func (o *operator) Do(vals ...G.Value) (G.Value, error) {
	if p, ok := o.spec.(projection); ok {
		return toValue(vals[0].(*multi).aux[p.Output-1]), nil
	}
	dev := o.b.oracle
	if dev == nil {
		return nil, fmt.Errorf("graph: no oracle device to run %v on Gorgonia's tape", o)
	}
	in := make([]Buffer, len(vals))
	inDesc := make([]Desc, len(vals))
	for i, v := range vals {
		var err error
		if in[i], err = fromValue(dev, v); err != nil {
			return nil, err
		}
		inDesc[i] = in[i].Desc
	}
	outDesc := o.spec.Infer(inDesc)
	out := make([]Buffer, len(outDesc))
	for i, d := range outDesc {
		if m, ok := o.spec.(mutator); ok && i == 0 {
			out[0] = in[m.Target()]
			continue
		}
		mem, err := dev.Alloc("tape", d.Bytes())
		if err != nil {
			return nil, err
		}
		out[i] = mem.At(0, d)
	}
	k, err := dev.Kernel(o.spec, inDesc, outDesc)
	if err != nil {
		return nil, err
	}
	if err := k(in, out); err != nil {
		return nil, err
	}
	primary := toValue(out[0])
	if len(out) == 1 {
		return primary, nil
	}
	return &multi{Dense: primary.(*tensor.Dense), aux: out[1:]}, nil
}

func fromValue(dev Device, v G.Value) (Buffer, error) {
	if m, ok := v.(*multi); ok {
		v = m.Dense
	}
	var raw []byte
	d := Desc{}
	if !v.Shape().IsScalar() {
		d.Shape = v.Shape()
	}
	switch x := v.Data().(type) {
	case []float32:
		d.Dtype, raw = F32, Bytes(x)
	case []float64:
		d.Dtype, raw = F64, Bytes(x)
	case []int32:
		d.Dtype, raw = I32, Bytes(x)
	case float32:
		d.Dtype, raw = F32, Bytes([]float32{x})
	case float64:
		d.Dtype, raw = F64, Bytes([]float64{x})
	case int32:
		d.Dtype, raw = I32, Bytes([]int32{x})
	default:
		return Buffer{}, fmt.Errorf("graph: a value of type %T on the tape", x)
	}
	m, err := dev.Alloc("tape", len(raw))
	if err != nil {
		return Buffer{}, err
	}
	b := m.At(0, d)
	return b, dev.Upload(b, raw)
}

func toValue(b Buffer) G.Value {
	var v G.Value
	switch {
	case len(b.Shape) == 0 && b.Dtype == F32:
		v = G.NewF32(b.F32()[0])
	case len(b.Shape) == 0 && b.Dtype == F64:
		v = G.NewF64(b.F64()[0])
	case b.Dtype == F32:
		v = tensor.New(tensor.WithShape(b.Shape...), tensor.WithBacking(b.F32()))
	case b.Dtype == F64:
		v = tensor.New(tensor.WithShape(b.Shape...), tensor.WithBacking(b.F64()))
	case b.Dtype == I32:
		v = tensor.New(tensor.WithShape(b.Shape...), tensor.WithBacking(b.I32()))
	default:
		panic(fmt.Sprintf("graph: %v on the tape", b.Desc))
	}
	return v
}
