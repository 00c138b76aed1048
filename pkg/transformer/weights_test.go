package transformer

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestInitIsTheReferences(t *testing.T) {
	c := with(tiny, func(c *Config) { c.Dim, c.FFN, c.Vocab, c.HeadDim, c.QKVBias = 160, 320, 500, 40, true })
	linear := math.Sqrt(2.0 / 5 / 160)
	residual := 1 / math.Sqrt(160) / 2
	for _, x := range Init(c, 1).Tensors {
		want := linear
		switch {
		case strings.HasSuffix(x.Name, "bias"):
			for _, v := range x.Data {
				if v != 0 {
					t.Fatalf("%s begins at %v", x.Name, v)
				}
			}
			continue
		case strings.Contains(x.Name, "norm"):
			for _, v := range x.Data {
				if v != 1 {
					t.Fatalf("%s begins at %v", x.Name, v)
				}
			}
			continue
		case strings.Contains(x.Name, "o_proj"), strings.Contains(x.Name, "down_proj"):
			want = residual
		}
		var sum, squares, fourth float64
		n := float64(len(x.Data))
		for _, v := range x.Data {
			z := float64(v) / want
			sum, squares, fourth = sum+z, squares+z*z, fourth+z*z*z*z
		}
		// Five standard errors of the moments 0, 1 and 3 of a standard normal variable.
		if e := 5 / math.Sqrt(n); math.Abs(sum/n) > e || math.Abs(squares/n-1) > math.Sqrt2*e || math.Abs(fourth/n-3) > math.Sqrt(96)*e {
			t.Errorf("%s: moments %.4f, %.4f, %.4f of n = %v", x.Name, sum/n, squares/n, fourth/n, n)
		}
	}
}

// A value depends on seed, name and index only: not on the threads, nor on the model's other tensors.
func TestInitIsCounterBased(t *testing.T) {
	large := with(tiny, func(c *Config) { c.Vocab = 4000 }) // the embedding is initialised in more than one piece
	want := Init(large, 5)
	before := runtime.GOMAXPROCS(1)
	sameWeights(t, Init(large, 5), want)
	runtime.GOMAXPROCS(before)

	fewer := Init(with(large, func(c *Config) { c.FFN = 8 }), 5)
	for i, x := range want.Tensors {
		same := slices.Equal(fewer.Tensors[i].Data, x.Data)
		if changed := strings.Contains(x.Name, "mlp"); same == changed {
			t.Errorf("%s: same as in a model with a narrower mlp: %v", x.Name, same)
		}
	}
	for i, x := range Init(large, 6).Tensors {
		if !strings.Contains(x.Name, "norm") && slices.Equal(x.Data, want.Tensors[i].Data) {
			t.Errorf("%s is the same for another seed", x.Name)
		}
	}
	seen := map[float32]string{}
	for _, x := range want.Tensors {
		if !strings.Contains(x.Name, "norm") {
			if other, twice := seen[x.Data[0]]; twice {
				t.Errorf("%s begins like %s", x.Name, other)
			}
			seen[x.Data[0]] = x.Name
		}
	}
}

// Values computed by the same formulas in CPython. Golden losses rest on them.
func TestInitGolden(t *testing.T) {
	w := Init(tiny, 3407)
	for _, g := range []struct {
		tensor, index int
		want          float32
	}{
		{0, 0, -0.048434147071868175}, {0, 1199, -0.04268928027449119}, {4, 7, -0.05911887053514371},
	} {
		if got := w.Tensors[g.tensor].Data[g.index]; math.Abs(float64(got-g.want)) > 1e-8 {
			t.Errorf("%s[%d] = %.9g, want %.9g", w.Tensors[g.tensor].Name, g.index, got, g.want)
		}
	}
}
