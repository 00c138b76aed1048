package graphtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"meap/pkg/graph"
)

// tensor is an operand or a result on the host: float32 or int32 elements. Those of a tensor that a device stores in bfloat16 are
// numbers of that type.
type tensor struct {
	shape []int
	f     []float32
	i     []int32
	bf16  bool
}

func (x tensor) desc() graph.Desc {
	switch {
	case x.i != nil:
		return graph.Of(graph.I32, x.shape...)
	case x.bf16:
		return graph.Of(graph.BF16, x.shape...)
	}
	return graph.Of(graph.F32, x.shape...)
}

func (x tensor) bytes() []byte {
	switch {
	case x.i != nil:
		return graph.Bytes(x.i)
	case x.bf16:
		short := make([]uint16, len(x.f))
		for i, v := range x.f {
			short[i] = uint16(math.Float32bits(graph.RoundBF16(v)) >> 16)
		}
		return graph.Bytes(short)
	}
	return graph.Bytes(x.f)
}

// fill reads the elements from bytes.
func (x tensor) fill(raw []byte) {
	if !x.bf16 {
		copy(x.bytes(), raw)
		return
	}
	short := make([]uint16, len(x.f))
	copy(graph.Bytes(short), raw)
	for i, v := range short {
		x.f[i] = math.Float32frombits(uint32(v) << 16)
	}
}

// stored returns x as a device holds it in a type, F32 or BF16.
func (x tensor) stored(t graph.Dtype) tensor {
	if x.i != nil || t != graph.BF16 {
		return x
	}
	y := tensor{shape: x.shape, f: make([]float32, len(x.f)), bf16: true}
	for i, v := range x.f {
		y.f[i] = graph.RoundBF16(v)
	}
	return y
}

func (x tensor) clone() tensor {
	return tensor{shape: x.shape, f: slices.Clone(x.f), i: slices.Clone(x.i), bf16: x.bf16}
}

// rows returns the part of x that belongs to the groups from..to of n equal ones along the leading axis.
func (x tensor) rows(from, to, n int) tensor {
	y := tensor{shape: slices.Clone(x.shape), bf16: x.bf16}
	y.shape[0] = x.shape[0] / n * (to - from)
	if x.i != nil {
		y.i = x.i[len(x.i)/n*from : len(x.i)/n*to]
	} else {
		y.f = x.f[len(x.f)/n*from : len(x.f)/n*to]
	}
	return y
}

func elems(shape []int) int { return graph.Desc{Shape: shape}.Elems() }

// filled returns a float32 tensor with every element v.
func filled(v float32, shape ...int) tensor {
	x := tensor{shape: shape, f: make([]float32, elems(shape))}
	for i := range x.f {
		x.f[i] = v
	}
	return x
}

// zeros returns a tensor like d.
func zeros(d graph.Desc) tensor {
	if d.Dtype == graph.I32 {
		return tensor{shape: d.Shape, i: make([]int32, d.Elems())}
	}
	x := filled(0, d.Shape...)
	x.bf16 = d.Dtype == graph.BF16
	return x
}

// source makes random tensors.
type source struct{ *rand.Rand }

// normal draws from the normal distribution with mean 0 and the given standard deviation.
func (s source) normal(deviation float64, shape ...int) tensor {
	x := filled(0, shape...)
	for i := range x.f {
		x.f[i] = float32(s.NormFloat64() * deviation)
	}
	return x
}

// uniform draws from [low, high).
func (s source) uniform(low, high float64, shape ...int) tensor {
	x := filled(0, shape...)
	for i := range x.f {
		x.f[i] = float32(low + s.Float64()*(high-low))
	}
	return x
}

// ints draws n integers from [0, below).
func (s source) ints(n, below int) tensor {
	x := tensor{shape: []int{n}, i: make([]int32, n)}
	for i := range x.i {
		x.i[i] = int32(s.IntN(below))
	}
	return x
}

// guard is how many words before and behind every tensor must stay as they are.
const guard = 64

// guardWord is what they hold: a NaN, in float32 and in bfloat16, so that a kernel that reads them shows.
const guardWord = 0x7fc0feed

// placed is a tensor in the memory of a device, between guards.
type placed struct {
	dev    graph.Device
	memory graph.Memory
	buffer graph.Buffer
	words  int // of the tensor, the last of which may belong to it by half
}

func place(dev graph.Device, label string, x tensor) (*placed, error) {
	d := x.desc()
	p := &placed{dev: dev, words: (d.Bytes() + 3) / 4}
	var err error
	if p.memory, err = dev.Alloc(label, 4*(p.words+2*guard)); err != nil {
		return nil, err
	}
	p.buffer = p.memory.At(4*guard, d)
	image := p.guards()
	copy(graph.Bytes(image[guard:guard+p.words]), x.bytes())
	return p, dev.Upload(p.image(), graph.Bytes(image))
}

// guards returns the contents of a memory without a tensor.
func (p *placed) guards() []int32 {
	image := make([]int32, p.words+2*guard)
	for i := range image {
		image[i] = guardWord
	}
	return image
}

// image is the whole memory, guards included.
func (p *placed) image() graph.Buffer {
	return p.memory.At(0, graph.Of(graph.I32, p.words+2*guard))
}

// read returns the tensor, and an error where a guard was written.
func (p *placed) read() (tensor, error) {
	image := make([]int32, p.words+2*guard)
	if err := p.dev.Download(graph.Bytes(image), p.image()); err != nil {
		return tensor{}, err
	}
	x := zeros(p.buffer.Desc)
	tensorBytes := graph.Bytes(image)[4*guard:][:p.buffer.Bytes()]
	x.fill(tensorBytes)
	copy(tensorBytes, graph.Bytes(p.guards())[4*guard:]) // what is left are the guards
	for i, v := range image {
		if v != guardWord {
			return tensor{}, fmt.Errorf("%s %v: the kernel wrote element %d, outside of the tensor", p.memory.Label, p.buffer.Desc, i-guard)
		}
	}
	return x, nil
}

// differ returns the first element in which two tensors differ in their bits, or -1.
func differ(a, b tensor) int {
	for i := range a.f {
		if math.Float32bits(a.f[i]) != math.Float32bits(b.f[i]) {
			return i
		}
	}
	for i := range a.i {
		if a.i[i] != b.i[i] {
			return i
		}
	}
	return -1
}

func (x tensor) at(i int) any {
	if x.i != nil {
		return x.i[i]
	}
	return x.f[i]
}

// wide is a tensor in the precision of the truth.
type wide struct {
	shape []int
	f     []float64
	i     []int32
}

func widen(xs []tensor) []wide {
	out := make([]wide, len(xs))
	for k, x := range xs {
		out[k] = wide{shape: x.shape, i: slices.Clone(x.i)}
		if x.i == nil {
			out[k].f = make([]float64, len(x.f))
			for i, v := range x.f {
				out[k].f[i] = float64(v)
			}
		}
	}
	return out
}

func (x wide) abs() wide {
	y := wide{shape: x.shape, i: x.i, f: slices.Clone(x.f)}
	for i, v := range y.f {
		y.f[i] = math.Abs(v)
	}
	return y
}
