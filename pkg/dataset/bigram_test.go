package dataset

import (
	"math"
	"testing"
)

func TestBigramByHand(t *testing.T) {
	const bos, eos = 256, 257
	m, err := NewBigramModel(stream(t, prepared(t, map[string]string{"1": "ab", "2": "aa"}), Train))
	if err != nil {
		t.Fatal(err)
	}
	// Pairs: <s>a twice; ab, aa, b</s>, a</s> once; </s><s> does not count. So n1 + 1 = 5 and n2 + 1 = 2.
	const d = 5.0 / 9
	// a was seen after <s> and a, b after a, </s> after b and a: E = 5, T = 3.
	u := 3.0 / 259
	pa, pb, pend, pc := (2+u)/8, (1+u)/8, (2+u)/8, u/8
	for _, c := range []struct {
		a, b int32
		want float64
	}{
		{bos, 'a', (2 - d + d*1*pa) / 2},
		{bos, 'b', d * 1 * pb / 2},
		{'a', 'b', (1 - d + d*3*pb) / 3},
		{'a', 'c', d * 3 * pc / 3},
		{'b', eos, 1 - d + d*1*pend},
		{'c', eos, pend}, // c was never seen
	} {
		if got := m.Probability(c.a, c.b); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("P(%d | %d) = %v, want %v", c.b, c.a, got, c.want)
		}
		if got := m.Nats(c.a, c.b); math.Abs(got+math.Log(c.want)) > 1e-14 {
			t.Errorf("-ln P(%d | %d) = %v, want %v", c.b, c.a, got, -math.Log(c.want))
		}
	}
}

func TestBigramIsADistribution(t *testing.T) {
	for name, text := range map[string]string{
		"varied":                  "to be, or not to be, that is the question",
		"no pair occurs once":     "aaaaaaaaaaaaaaaa",
		"every pair occurs once":  "abcdefgh",
		"a single byte, and ends": "x",
	} {
		m, err := NewBigramModel(stream(t, prepared(t, map[string]string{"1": text, "2": text}), Train))
		if err != nil {
			t.Fatal(err)
		}
		for a := range int32(259) {
			sum := 0.0
			for b := range int32(259) {
				p := m.Probability(a, b)
				if !(p > 0) {
					t.Fatalf("%s: P(%d | %d) = %v", name, b, a, p)
				}
				sum += p
			}
			if math.Abs(sum-1) > 1e-12 {
				t.Fatalf("%s: probabilities after %d sum to %v", name, a, sum)
			}
		}
	}
}
