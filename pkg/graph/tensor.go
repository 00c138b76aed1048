package graph

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"gorgonia.org/tensor"
)

// Dtype is the type of a tensor's elements.
type Dtype uint8

// The element types that graphs know. BF16 is a storage type of checkpoints and devices; graphs compute in F32 (or in F64,
// for tests of derivatives).
const (
	F32 Dtype = iota
	F64
	I32
	BF16
)

// Size returns the bytes of one element.
func (d Dtype) Size() int {
	switch d {
	case F64:
		return 8
	case BF16:
		return 2
	default:
		return 4
	}
}

func (d Dtype) String() string {
	return [...]string{"fp32", "fp64", "int32", "bf16"}[d]
}

func (d Dtype) tensor() tensor.Dtype {
	switch d {
	case F64:
		return tensor.Float64
	case I32:
		return tensor.Int32
	default:
		return tensor.Float32
	}
}

func dtypeOf(t tensor.Dtype) Dtype {
	switch t {
	case tensor.Float32:
		return F32
	case tensor.Float64:
		return F64
	case tensor.Int32:
		return I32
	}
	panic(fmt.Sprintf("graph: unsupported dtype %v", t))
}

// Desc describes a tensor: its shape (empty for a scalar) and its element type. Tensors are dense and row-major.
type Desc struct {
	Shape []int
	Dtype Dtype
}

// Of is shorthand for a Desc.
func Of(d Dtype, shape ...int) Desc { return Desc{Shape: shape, Dtype: d} }

// Elems returns the number of elements; 1 for a scalar.
func (d Desc) Elems() int {
	n := 1
	for _, s := range d.Shape {
		n *= s
	}
	return n
}

// Bytes returns the size of the tensor's elements in bytes.
func (d Desc) Bytes() int { return d.Elems() * d.Dtype.Size() }

// Equal reports whether shape and element type are the same.
func (d Desc) Equal(o Desc) bool {
	if d.Dtype != o.Dtype || len(d.Shape) != len(o.Shape) {
		return false
	}
	for i, s := range d.Shape {
		if s != o.Shape[i] {
			return false
		}
	}
	return true
}

func (d Desc) String() string {
	s := make([]string, len(d.Shape))
	for i, n := range d.Shape {
		s[i] = fmt.Sprint(n)
	}
	return d.Dtype.String() + "[" + strings.Join(s, ",") + "]"
}

// Memory is a region that a Device has allocated.
type Memory struct {
	Label string         // what it is for; named in errors and plans
	Host  unsafe.Pointer // its address, on a device that computes in host memory
	Addr  uintptr        // its address, on a device with memory of its own
	Bytes int
}

// At returns the tensor d that begins offset bytes into the region.
func (m Memory) At(offset int, d Desc) Buffer {
	if offset < 0 || offset+d.Bytes() > m.Bytes {
		panic(fmt.Sprintf("graph: %v at byte %d does not fit into %d bytes of %q", d, offset, m.Bytes, m.Label))
	}
	b := Buffer{Desc: d, Addr: m.Addr + uintptr(offset)}
	if m.Host != nil {
		b.Host = unsafe.Add(m.Host, offset)
	}
	return b
}

// Buffer is a tensor in a device's memory.
type Buffer struct {
	Desc
	Host unsafe.Pointer // nil on a device with memory of its own
	Addr uintptr        // 0 on a device that computes in host memory
}

// F32 returns the elements of a float32 tensor in host memory.
func (b Buffer) F32() []float32 { return view[float32](b, F32) }

// F64 returns the elements of a float64 tensor in host memory.
func (b Buffer) F64() []float64 { return view[float64](b, F64) }

// I32 returns the elements of an int32 tensor in host memory.
func (b Buffer) I32() []int32 { return view[int32](b, I32) }

// BF16 returns the elements of a bfloat16 tensor in host memory: the upper halves of float32 numbers.
func (b Buffer) BF16() []uint16 { return view[uint16](b, BF16) }

func view[T any](b Buffer, want Dtype) []T {
	if b.Dtype != want || b.Host == nil {
		panic(fmt.Sprintf("graph: %v is not a host tensor of %v", b.Desc, want))
	}
	return unsafe.Slice((*T)(b.Host), b.Elems())
}

// Bytes returns the memory of a slice of numbers, as Upload and Download take it.
func Bytes[T float32 | float64 | int32 | uint16](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

// RoundBF16 returns the bfloat16 nearest to v, ties to even, as a float32. NaN stays NaN.
func RoundBF16(v float32) float32 {
	if v != v {
		return v
	}
	u := math.Float32bits(v)
	u += 0x7fff + u>>16&1
	return math.Float32frombits(u &^ 0xffff)
}
