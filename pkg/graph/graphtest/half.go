package graphtest

import (
	"math"
	"unsafe"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// Half is package naive storing the activations of bf16 programs in bfloat16: each kernel widens its operands and rounds its
// results. It is the specification of a graph.Storer.
type Half struct {
	naive.Device[float32]
	// Asked holds, for each kind of operator, the types of the operands and results that kernels were asked for.
	Asked map[string][]string
}

// NewHalf returns a device that has been asked for nothing.
func NewHalf() *Half { return &Half{Asked: map[string][]string{}} }

// Storage implements graph.Storer.
func (*Half) Storage(p graph.Precision) graph.Dtype { return p.Operands() }

// Kernel implements graph.Device.
func (h *Half) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	kind := graph.Kind(op)
	h.Asked[kind] = append(h.Asked[kind], types(in)+" ->"+types(out))
	ins, inShadows := h.widen(in)
	outs, outShadows := h.widen(out)
	k, err := h.Device.Kernel(op, ins, outs)
	if err != nil {
		return nil, err
	}
	return func(in, out []graph.Buffer) error {
		for i, b := range in {
			if b.Dtype == graph.BF16 {
				for j, v := range short(b) {
					inShadows[i].F32()[j] = math.Float32frombits(uint32(v) << 16)
				}
			} else {
				inShadows[i] = b
			}
		}
		for i, b := range out {
			if b.Dtype != graph.BF16 {
				outShadows[i] = b
			}
		}
		if err := k(inShadows, outShadows); err != nil {
			return err
		}
		for i, b := range out {
			if b.Dtype == graph.BF16 {
				for j, v := range outShadows[i].F32() {
					short(b)[j] = uint16(math.Float32bits(graph.RoundBF16(v)) >> 16)
				}
			}
		}
		return nil
	}, nil
}

func types(ds []graph.Desc) (s string) {
	for _, d := range ds {
		s += " " + d.Dtype.String()
	}
	return s
}

// widen returns descriptions in fp32, and memory for those tensors that are not.
func (h *Half) widen(ds []graph.Desc) (wide []graph.Desc, shadows []graph.Buffer) {
	for _, d := range ds {
		var shadow graph.Buffer
		if d.Dtype == graph.BF16 {
			d.Dtype = graph.F32
			m, _ := h.Alloc("shadow", d.Bytes())
			shadow = m.At(0, d)
		}
		wide, shadows = append(wide, d), append(shadows, shadow)
	}
	return wide, shadows
}

func short(b graph.Buffer) []uint16 { return unsafe.Slice((*uint16)(b.Host), b.Elems()) }
