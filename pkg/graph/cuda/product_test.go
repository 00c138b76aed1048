//go:build gpu && linux

package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"meap/pkg/graph"
)

// The kernel for products without an algorithm, and cuBLASLt, against a plain loop.
func TestProducts(t *testing.T) {
	d := open(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, types := range [][2]graph.Dtype{{graph.F32, graph.F32}, {graph.BF16, graph.BF16}, {graph.BF16, graph.F32}} {
		for _, f := range []form{nt, nn, tn} {
			for _, sum := range []string{"", " added to what is there", " added to another"} {
				p := product{form: f, m: 72, n: 40, k: 136, in: types[0], out: types[1], aligned: whole}
				a, b := randomTensor(t, d, random, p.in, p.m*p.k), randomTensor(t, d, random, p.in, p.k*p.n)
				c, dst := randomTensor(t, d, random, p.out, p.m*p.n), randomTensor(t, d, random, p.out, p.m*p.n)
				plus, from := addr(0), make([]float32, p.m*p.n)
				switch sum {
				case " added to what is there":
					plus, from = dst.Addr, dst.values
				case " added to another":
					plus, from = c.Addr, c.values
				}
				library, err := d.multiply(p)
				if err != nil {
					t.Fatal(err)
				}
				for name, multiply := range map[string]multiplier{"cuBLASLt": library, "kernel": d.multiplyAnyhow(p)} {
					dst.put(t)
					if err := multiply(a.Addr, b.Addr, plus, dst.Addr); err != nil {
						t.Fatal(err)
					}
					worst := 0.0
					for at, have := range dst.get(t) {
						i, j := at/p.n, at%p.n
						want, terms := float64(from[at]), math.Abs(float64(from[at]))
						for x := range p.k {
							ai, bj := i*p.k+x, x*p.n+j
							if f == tn {
								ai = x*p.m + i
							}
							if f == nt {
								bj = j*p.k + x
							}
							term := float64(a.values[ai]) * float64(b.values[bj])
							want, terms = want+term, terms+math.Abs(term)
						}
						limit := 1e-5 * terms
						if p.out == graph.BF16 {
							// A library may round the product before it adds what was there.
							limit += (math.Abs(want) + math.Abs(want-float64(from[at]))) / 256
						}
						worst = max(worst, math.Abs(float64(have)-want)/limit)
					}
					if !(worst <= 1) {
						t.Errorf("%s, %v to %v%s: an error of %.2g of what is allowed", name, p, p.out, sum, worst)
					}
				}
				for _, x := range []*deviceTensor{a, b, c, dst} {
					d.give(x.Addr)
				}
			}
		}
	}
}

// deviceTensor is a tensor with the values that it was made of.
type deviceTensor struct {
	graph.Buffer
	d      *Device
	values []float32
}

// randomTensor is freed by the caller.
func randomTensor(t *testing.T, d *Device, random *rand.Rand, dtype graph.Dtype, n int) *deviceTensor {
	t.Helper()
	x := &deviceTensor{d: d, values: make([]float32, n)}
	for i := range x.values {
		if x.values[i] = float32(random.NormFloat64()); dtype == graph.BF16 {
			x.values[i] = graph.RoundBF16(x.values[i])
		}
	}
	desc := graph.Of(dtype, n)
	m, err := d.Alloc("x", desc.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	x.Buffer = m.At(0, desc)
	x.put(t)
	return x
}

// put writes the values.
func (x *deviceTensor) put(t *testing.T) {
	t.Helper()
	raw := graph.Bytes(x.values)
	if x.Dtype == graph.BF16 {
		half := make([]uint16, len(x.values))
		for i, v := range x.values {
			half[i] = uint16(math.Float32bits(v) >> 16)
		}
		raw = graph.Bytes(half)
	}
	if err := x.d.Upload(x.Buffer, raw); err != nil {
		t.Fatal(err)
	}
}

// get reads what the device has now.
func (x *deviceTensor) get(t *testing.T) []float32 {
	t.Helper()
	out, half := make([]float32, len(x.values)), make([]uint16, len(x.values))
	raw := graph.Bytes(out)
	if x.Dtype == graph.BF16 {
		raw = graph.Bytes(half)
	}
	if err := x.d.Download(raw, x.Buffer); err != nil {
		t.Fatal(err)
	}
	if x.Dtype == graph.BF16 {
		for i, h := range half {
			out[i] = math.Float32frombits(uint32(h) << 16)
		}
	}
	return out
}
