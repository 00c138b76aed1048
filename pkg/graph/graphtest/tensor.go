package graphtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"meap/pkg/graph"
)

// tensor is an operand or a result on the host: float32 or int32 elements.
type tensor struct {
	shape []int
	f     []float32
	i     []int32
}

func (x tensor) desc() graph.Desc {
	if x.i != nil {
		return graph.Of(graph.I32, x.shape...)
	}
	return graph.Of(graph.F32, x.shape...)
}

func (x tensor) bytes() []byte {
	if x.i != nil {
		return graph.Bytes(x.i)
	}
	return graph.Bytes(x.f)
}

func (x tensor) clone() tensor {
	return tensor{shape: x.shape, f: slices.Clone(x.f), i: slices.Clone(x.i)}
}

// rows returns the part of x that belongs to the groups from..to of n equal ones along the leading axis.
func (x tensor) rows(from, to, n int) tensor {
	y := tensor{shape: slices.Clone(x.shape)}
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
	return filled(0, d.Shape...)
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

// guardWord is what they hold: a NaN, so that a kernel that reads them shows.
const guardWord = 0x7fc0dead

// placed is a tensor in the memory of a device, between guards.
type placed struct {
	dev    graph.Device
	memory graph.Memory
	buffer graph.Buffer
	words  int
}

func place(dev graph.Device, label string, x tensor) (*placed, error) {
	d := x.desc()
	p := &placed{dev: dev, words: d.Elems()}
	var err error
	if p.memory, err = dev.Alloc(label, 4*(p.words+2*guard)); err != nil {
		return nil, err
	}
	p.buffer = p.memory.At(4*guard, d)
	image := make([]int32, p.words+2*guard)
	for i := range image {
		image[i] = guardWord
	}
	copy(graph.Bytes(image[guard:guard+p.words]), x.bytes())
	return p, dev.Upload(p.image(), graph.Bytes(image))
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
	for i, v := range image {
		if (i < guard || i >= guard+p.words) && v != guardWord {
			return tensor{}, fmt.Errorf("%s %v: the kernel wrote element %d, outside of the tensor", p.memory.Label, p.buffer.Desc, i-guard)
		}
	}
	x := zeros(p.buffer.Desc)
	copy(x.bytes(), graph.Bytes(image[guard:guard+p.words]))
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
