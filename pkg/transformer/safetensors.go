package transformer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/edsrzf/mmap-go"
	"github.com/nlpodyssey/safetensors"

	"meap/internal/durable"
	"meap/pkg/graph"
)

// WriteTensors writes fp32 tensors and a header of meta to a safetensors file, whole and durably. It holds no second copy of them.
func WriteTensors(path string, tensors []Tensor, meta map[string]string) error {
	return writeTensors(path, tensors, meta, safetensors.F32)
}

func writeTensors(path string, tensors []Tensor, meta map[string]string, d safetensors.DType) error {
	views := make(map[string]tensorView, len(tensors))
	for _, t := range tensors {
		if _, twice := views[t.Name]; twice {
			return fmt.Errorf("write %s: two tensors are named %s", path, t.Name)
		}
		if n := (graph.Desc{Shape: t.Shape}).Elems(); n != len(t.Data) {
			return fmt.Errorf("write %s: tensor %s of shape %v has %d elements", path, t.Name, t.Shape, len(t.Data))
		}
		views[t.Name] = tensorView{t, d}
	}
	return durable.Replace(path, func(w io.Writer) error { return safetensors.SerializeToWriter(views, meta, w) })
}

// tensorView shows a tensor to the safetensors writer, as fp32 or rounded to bf16.
type tensorView struct {
	Tensor
	dtype safetensors.DType
}

// DType implements safetensors.View.
func (v tensorView) DType() safetensors.DType { return v.dtype }

// Shape implements safetensors.View.
func (v tensorView) Shape() []uint64 {
	shape := make([]uint64, len(v.Tensor.Shape))
	for i, n := range v.Tensor.Shape {
		shape[i] = uint64(n)
	}
	return shape
}

// DataLen implements safetensors.View.
func (v tensorView) DataLen() uint64 { return uint64(len(v.Tensor.Data)) * v.dtype.Size() }

// Data implements safetensors.View. The writer asks for one tensor at a time.
func (v tensorView) Data() []byte {
	if v.dtype == safetensors.F32 {
		return graph.Bytes(v.Tensor.Data)
	}
	out := make([]byte, 2*len(v.Tensor.Data))
	for i, x := range v.Tensor.Data {
		binary.LittleEndian.PutUint16(out[2*i:], uint16(math.Float32bits(graph.RoundBF16(x))>>16))
	}
	return out
}

// ReadTensors reads a safetensors file of floating-point tensors, as fp32, in the file's order, and the meta of its header.
func ReadTensors(path string) (tensors []Tensor, meta map[string]string, err error) {
	f, err := openTensors(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	for _, v := range f.views {
		t, err := v.read(path)
		if err != nil {
			return nil, nil, err
		}
		tensors = append(tensors, t)
	}
	return tensors, f.meta, nil
}

// tensorFile is a safetensors file, mapped into memory.
type tensorFile struct {
	views  []fileView // in the order of the file
	meta   map[string]string
	mapped mmap.MMap
}

// fileView is a tensor in a mapped file.
type fileView struct {
	name  string
	shape []int
	dtype safetensors.DType
	data  []byte
}

func openTensors(path string) (*tensorFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file", path)
	}
	if info.Size() == 0 { // nothing to map
		return nil, notTensors(path, errors.New("the file is empty"))
	}
	t := &tensorFile{}
	if t.mapped, err = mmap.Map(f, mmap.RDONLY, 0); err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", path, err)
	}
	if err := t.parse(); err != nil {
		return nil, errors.Join(notTensors(path, err), t.close())
	}
	return t, nil
}

func notTensors(path string, err error) error {
	return fmt.Errorf("read %s: it is not a whole safetensors file (%w): copy or download it again", path, err)
}

func (f *tensorFile) parse() error {
	_, header, err := safetensors.ReadMetadata(f.mapped)
	if err != nil {
		return err
	}
	f.meta = header.Metadata()
	all, err := safetensors.Deserialize(f.mapped)
	if err != nil {
		return err
	}
	for _, v := range all.Tensors() {
		shape := make([]int, len(v.TensorView.Shape()))
		for i, n := range v.TensorView.Shape() {
			// A tensor without elements may claim any size in its other dimensions.
			if n > math.MaxInt32 {
				return fmt.Errorf("tensor %s has %d elements in a row", v.Name, n)
			}
			shape[i] = int(n)
		}
		f.views = append(f.views, fileView{v.Name, shape, v.TensorView.DType(), v.TensorView.Data()})
	}
	return nil
}

func (f *tensorFile) close() error { return f.mapped.Unmap() }

// read copies a tensor out of the file at path, as fp32.
func (v fileView) read(path string) (Tensor, error) {
	t := Tensor{Name: v.name, Shape: v.shape}
	switch v.dtype {
	case safetensors.F32:
		t.Data = make([]float32, len(v.data)/4)
		copy(graph.Bytes(t.Data), v.data)
	case safetensors.BF16:
		t.Data = make([]float32, len(v.data)/2)
		for i := range t.Data {
			t.Data[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(v.data[2*i:])) << 16)
		}
	case safetensors.F16:
		t.Data = make([]float32, len(v.data)/2)
		for i := range t.Data {
			t.Data[i] = fromHalf(binary.LittleEndian.Uint16(v.data[2*i:]))
		}
	default:
		return t, fmt.Errorf("read %s: tensor %s is %v; F32, BF16 and F16 can be read", path, v.name, v.dtype)
	}
	return t, nil
}

// fromHalf converts an IEEE 754 binary16 number. Every one of them is a float32.
func fromHalf(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	case 0: // zero and subnormal: fraction * 2^-24
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(sign | math.Float32bits(v))
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
