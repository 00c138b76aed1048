package cpu

import (
	"slices"
	"testing"

	"meap/pkg/graph"
)

// Pieces of logits are as many as memory asks for, alike, and of whole panels where there are several.
func TestLogitRows(t *testing.T) {
	for _, c := range []struct{ n, vocab, mr, want int }{
		{1024, 32064, 1, 128}, {1024, 32064, 6, 132}, {1024, 32064, 14, 140}, {1024, 32064, 32, 128}, // 8 pieces
		{4096, 32064, 1, 256}, {4096, 32064, 6, 258}, // 16
		{65, 32064, 6, 65}, {66, 32064, 6, 36}, {0, 32064, 6, 0}, // 8 MiB hold 65
		{8000, 259, 6, 8000}, {8098, 259, 6, 4050}, // and 8097 of these
	} {
		if got := logitRows(c.n, c.vocab, c.mr); got != c.want {
			t.Errorf("%d tokens, vocabulary %d, panels of %d: %d rows, want %d", c.n, c.vocab, c.mr, got, c.want)
		}
	}
	for _, vocab := range []int{1, 259, 32064, 1 << 20} {
		for n := 1; n < 5000; n += 7 {
			even := logitRows(n, vocab, 1)
			for _, mr := range []int{4, 6, 14, 32} {
				rows := logitRows(n, vocab, mr)
				if rows < even || rows >= even+mr || rows < n && rows%mr != 0 || rows > n {
					t.Fatalf("%d tokens, vocabulary %d, panels of %d: %d rows, without panels %d", n, vocab, mr, rows, even)
				}
			}
		}
	}
}

// Two pieces of logits give the bits of their tokens apart, the second adding to the head's gradient.
func TestLogitsInPieces(t *testing.T) {
	const n, dim, vocab = 70, 2, 33_000
	for _, isa := range AvailableISAs() {
		for _, storage := range []graph.Dtype{graph.F32, graph.BF16} {
			dev := open(t, 2, isa)
			p := graph.FP32
			if storage == graph.BF16 {
				p = graph.BF16Operands
			}
			step := dev.logitRows(n, vocab, p)
			if step >= n {
				t.Fatalf("%v: %d tokens are one piece", isa, n)
			}
			// grad returns the results for the tokens from..to, the head's gradient being added to what is there.
			grad := func(from, to int, head []float32) (dx, nll []byte) {
				m := to - from
				in := []graph.Buffer{floatTensor(t, dev, storage, normals(1, n*dim)[from*dim:to*dim], m, dim),
					floatTensor(t, dev, storage, normals(2, vocab*dim), vocab, dim), intTensor(t, dev, m), floatTensor(t, dev, graph.F32, normals(3, n)[from:to], m)}
				for i, labels := 0, in[2].I32(); i < m; i++ {
					labels[i] = int32((from+i)*97%vocab - 1) // the first has none
				}
				out := []graph.Buffer{floatTensor(t, dev, storage, make([]float32, m*dim), m, dim), floatTensor(t, dev, graph.F32, head, vocab, dim),
					floatTensor(t, dev, graph.F32, make([]float32, m), m)}
				run(t, dev, graph.LinearCrossEntropyGrad{Precision: p, AccHead: true}, in, out)
				copy(head, out[1].F32())
				forward := floatTensor(t, dev, graph.F32, make([]float32, m), m)
				run(t, dev, graph.LinearCrossEntropy{Precision: p}, in[:3], []graph.Buffer{forward})
				nll = bytesOf(t, dev, out[2])
				if !slices.Equal(nll, bytesOf(t, dev, forward)) {
					t.Errorf("%v, %v, %d tokens: the gradient's losses are others", isa, storage, m)
				}
				return bytesOf(t, dev, out[0]), nll
			}
			head, headParts := normals(4, vocab*dim), normals(4, vocab*dim)
			dx, nll := grad(0, n, head)
			dx1, nll1 := grad(0, step, headParts)
			dx2, nll2 := grad(step, n, headParts)
			if !slices.Equal(dx, append(dx1, dx2...)) || !slices.Equal(nll, append(nll1, nll2...)) || !slices.Equal(head, headParts) {
				t.Errorf("%v, %v: pieces of %d tokens differ from these tokens alone", isa, storage, step)
			}
		}
	}
}

func floatTensor(t *testing.T, dev *Device, dtype graph.Dtype, data []float32, shape ...int) graph.Buffer {
	t.Helper()
	d := graph.Of(dtype, shape...)
	m, err := dev.Alloc("test", d.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b := m.At(0, d)
	if dtype == graph.BF16 {
		dev.k.Narrow(b.BF16(), data)
	} else {
		copy(b.F32(), data)
	}
	return b
}

func intTensor(t *testing.T, dev *Device, n int) graph.Buffer {
	t.Helper()
	m, err := dev.Alloc("test", 4*n)
	if err != nil {
		t.Fatal(err)
	}
	return m.At(0, graph.Of(graph.I32, n))
}

func run(t *testing.T, dev *Device, op graph.Spec, in, out []graph.Buffer) {
	t.Helper()
	descs := func(bs []graph.Buffer) (ds []graph.Desc) {
		for _, b := range bs {
			ds = append(ds, b.Desc)
		}
		return ds
	}
	k, err := dev.Kernel(op, descs(in), descs(out))
	if err == nil {
		err = k(in, out)
	}
	if err != nil {
		t.Fatalf("%T: %v", op, err)
	}
}

func bytesOf(t *testing.T, dev *Device, b graph.Buffer) []byte {
	t.Helper()
	raw := make([]byte, b.Bytes())
	if err := dev.Download(raw, b); err != nil {
		t.Fatal(err)
	}
	return raw
}
