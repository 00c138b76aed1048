package masking

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func targets(t *testing.T, ratio float64, minTarget int, seed uint64) Targets {
	t.Helper()
	p, err := NewTargets(ratio, minTarget, maskID, seed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTargetsCount(t *testing.T) {
	for _, c := range []struct {
		ratio                   float64
		minTarget, length, want int
	}{
		{0.1, 50, 50, 0}, {0.1, 50, 51, 5}, {0.1, 50, 59, 5}, {0.1, 50, 60, 6}, {0.1, 50, 1000, 100}, {0.01, 50, 51, 1},
		{0.1, 0, 1, 1}, {0.1, 0, 0, 0}, {0.5, 0, 3, 1}, {0.5, 0, 4, 2}, {0, 0, 100, 0},
	} {
		if got := targets(t, c.ratio, c.minTarget, 1).Count(c.length); got != c.want {
			t.Errorf("ratio %v, more than %d, %d tokens: %d masked, want %d", c.ratio, c.minTarget, c.length, got, c.want)
		}
	}
}

func TestTargetsApply(t *testing.T) {
	p := targets(t, 0.2, 10, 5)
	spans := []Span{{3, 23}, {30, 40}, {50, 61}}
	if !p.Masks(spans) || p.Masks(spans[1:2]) || targets(t, 0, 0, 1).Masks(spans) {
		t.Error("Masks does not say which answers have masks")
	}
	seen := map[string]bool{}
	var scratch []int32
	for epoch := range int64(6) {
		for example := range int64(6) {
			ids := row(70)
			before := slices.Clone(ids)
			scratch = p.Apply(ids, spans, epoch, example, scratch)
			if !slices.IsSorted(scratch) || len(scratch) != 4+2 || len(slices.Compact(slices.Clone(scratch))) != 6 {
				t.Fatalf("masked %v", scratch)
			}
			for i, id := range ids {
				masked := slices.Contains(scratch, int32(i))
				if inside := i >= 3 && i < 23 || i >= 50 && i < 61; masked && !inside || masked != (id == maskID) || !masked && id != before[i] {
					t.Fatalf("position %d: id %d, masked %v", i, id, masked)
				}
			}
			key := string(rune(scratch[0])) + string(rune(scratch[1])) + string(rune(scratch[2])) + string(rune(scratch[3])) + string(rune(scratch[4])) + string(rune(scratch[5]))
			seen[key] = true
			if again := targets(t, 0.2, 10, 5).Apply(row(70), spans, epoch, example, nil); !slices.Equal(again, scratch) {
				t.Errorf("epoch %d, example %d: %v, and %v again", epoch, example, scratch, again)
			}
		}
	}
	if len(seen) < 35 { // of 36 draws out of 4845 x 55 sets
		t.Errorf("only %d different masks for 36 keys", len(seen))
	}
	if slices.Equal(targets(t, 0.2, 10, 6).Apply(row(70), spans, 0, 0, nil), targets(t, 0.2, 10, 5).Apply(row(70), spans, 0, 0, nil)) {
		t.Error("another seed gives the same masks")
	}
}

// Every token of an answer is masked equally often, the first and the last too.
func TestTargetsAreUniform(t *testing.T) {
	const length, draws = 30, 20000
	p := targets(t, 0.2, 10, 9)
	var count [length]float64
	var scratch []int32
	ids := row(length + 5)
	for i := range int64(draws) {
		scratch = p.Apply(ids, []Span{{2, 2 + length}}, i/100, i%100, scratch)
		for _, at := range scratch {
			count[at-2]++
		}
	}
	want, chi := draws*6.0/length, 0.0
	for _, c := range count {
		chi += (c - want) * (c - want) / (want * (1 - 6.0/length))
	}
	if chi > 75 { // 29 degrees of freedom: mean about 30, deviation about 8
		t.Errorf("chi-square %.1f over %d positions: %v", chi, length, count)
	}
}

func TestTargetsAreRefused(t *testing.T) {
	for _, ratio := range []float64{-0.1, 0.6, math.NaN()} {
		if _, err := NewTargets(ratio, 50, maskID, 0); err == nil || !strings.HasPrefix(err.Error(), "sft.ratio = ") {
			t.Errorf("ratio %v: %v", ratio, err)
		}
	}
	if _, err := NewTargets(0.1, 50, -1, 0); err == nil || !strings.Contains(err.Error(), "[MASK]") {
		t.Errorf("a tokenizer without [MASK]: %v", err)
	}
	if _, err := NewTargets(0, 50, -1, 0); err != nil {
		t.Errorf("ratio 0 needs no [MASK]: %v", err)
	}
}
