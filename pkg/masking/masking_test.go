package masking

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

const maskID = 258

// row returns [seq] ids that are all different from one another and from [MASK].
func row(seq int) []int32 {
	ids := make([]int32, seq)
	for i := range ids {
		ids[i] = int32(1000 + i)
	}
	return ids
}

func policy(t testing.TB, c Config, seed uint64) Policy {
	t.Helper()
	p, err := New(c, maskID, []int32{256, 257, 258}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCountIsExactAndLastPositionIsNeverMasked(t *testing.T) {
	for _, scheme := range []string{SchemePerRow, SchemeReference} {
		for _, seq := range []int{1, 2, 3, 4, 7, 8, 100, 129, 1000} {
			for _, ratio := range []float64{0, 0.001, 0.05, 0.15, 0.2, 0.5} {
				p := policy(t, Config{Scheme: scheme, Ratio: ratio}, 1)
				want := 0
				if ratio > 0 && seq >= 2 {
					want = min(seq-1, max(1, int(math.Floor(float64(seq)*ratio))))
				}
				for step := range int64(60) {
					ids := row(seq)
					positions := p.Apply(ids, step, int(step%5), nil)
					if len(positions) != want || p.Count(seq, step) != want {
						t.Fatalf("%s seq %d ratio %v: %d positions, Count says %d, want %d", scheme, seq, ratio, len(positions), p.Count(seq, step), want)
					}
					if !slices.IsSorted(positions) || len(slices.Compact(slices.Clone(positions))) != want {
						t.Fatalf("%s seq %d: positions %v are not increasing", scheme, seq, positions)
					}
					for i, id := range ids {
						masked := slices.Contains(positions, int32(i))
						if masked && (id != maskID || i == seq-1) || !masked && id != int32(1000+i) {
							t.Fatalf("%s seq %d: position %d holds %d, positions %v", scheme, seq, i, id, positions)
						}
					}
				}
			}
		}
	}
}

func TestSchemeNoneLeavesTheRowAlone(t *testing.T) {
	for _, p := range []Policy{None(), {}, policy(t, Config{Scheme: SchemeNone, Ratio: 0.5}, 1)} {
		ids := row(64)
		if positions := p.Apply(ids, 3, 0, []int32{1, 2}); len(positions) != 0 || !slices.Equal(ids, row(64)) {
			t.Fatalf("%+v masked %v", p, positions)
		}
	}
}

// The vectors come from scripts/masking-vectors.py, run by CPython.
func TestReferenceEqualsCPython(t *testing.T) {
	var vectors struct {
		Words []struct {
			Seed        uint32
			First, Last []uint32
			Count       int
		}
		Every []struct {
			Population int
			Positions  []int32
		}
		Samples []struct {
			Seq       int
			Ratio     float64
			Step      int64
			Positions []int32
		}
	}
	data, err := os.ReadFile("testdata/cpython.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Words) == 0 || len(vectors.Every) == 0 || len(vectors.Samples) < 200 {
		t.Fatal("testdata/cpython.json lacks vectors; write it anew with scripts/masking-vectors.py")
	}
	for _, v := range vectors.Words {
		var g mersenneTwister
		g.seed(v.Seed)
		drawn := make([]uint32, v.Count)
		for i := range drawn {
			drawn[i] = g.uint32()
		}
		if !slices.Equal(drawn[:5], v.First) || !slices.Equal(drawn[v.Count-5:], v.Last) {
			t.Errorf("seed %d: words differ from CPython's", v.Seed)
		}
	}
	for _, v := range vectors.Every {
		if got := referencePositions(13, v.Population, v.Population, nil); !slices.Equal(got, v.Positions) {
			t.Errorf("all %d positions: got %v", v.Population, got)
		}
	}
	pools, sets := 0, 0
	for _, v := range vectors.Samples {
		p := policy(t, Config{Scheme: SchemeReference, Ratio: v.Ratio}, 99)
		if v.Seq-1 <= sampleSetSize(len(v.Positions)) {
			pools++
		} else {
			sets++
		}
		for _, r := range []int{0, 3} { // one set for all rows
			if got := p.Apply(row(v.Seq), v.Step, r, nil); !slices.Equal(got, v.Positions) {
				t.Fatalf("seq %d ratio %v step %d row %d: got %v, CPython %v", v.Seq, v.Ratio, v.Step, r, got, v.Positions)
			}
		}
	}
	if pools < 20 || sets < 20 {
		t.Errorf("the vectors take the list %d times and the set %d times; both want a proof", pools, sets)
	}
}

func TestSameKeySameMask(t *testing.T) {
	c := Config{Scheme: SchemePerRow, Ratio: 0.15}
	p, q := policy(t, c, 7), policy(t, c, 7)
	want := make(map[[2]int][]int32)
	for step := range 4 {
		for r := range 8 {
			want[[2]int{step, r}] = slices.Clone(p.Apply(row(200), int64(step), r, nil))
		}
	}
	var scratch []int32
	for r := 7; r >= 0; r-- { // another order, other contents, a reused buffer
		for step := 3; step >= 0; step-- {
			scratch = q.Apply(make([]int32, 200), int64(step), r, scratch)
			if !slices.Equal(scratch, want[[2]int{step, r}]) {
				t.Fatalf("step %d row %d: %v, want %v", step, r, scratch, want[[2]int{step, r}])
			}
		}
	}
	seen := make(map[string]bool)
	for _, positions := range want {
		key, _ := json.Marshal(positions)
		seen[string(key)] = true
	}
	other, _ := json.Marshal(policy(t, c, 8).Apply(row(200), 0, 0, nil))
	if len(seen) != len(want) || seen[string(other)] {
		t.Errorf("%d different masks for %d keys; another seed repeats one: %v", len(seen), len(want), seen[string(other)])
	}
}

// Every position but the last is masked equally often, over steps at a fixed
// row and over rows at a fixed step; and neighbours no more often than chance
// has it.
func TestPositionsAreUniform(t *testing.T) {
	const seq, draws = 65, 20000
	p := policy(t, Config{Scheme: SchemePerRow, Ratio: 0.25}, 11)
	n := p.Count(seq, 0)
	for name, key := range map[string]func(i int) (int64, int){
		"steps": func(i int) (int64, int) { return int64(i), 2 },
		"rows":  func(i int) (int64, int) { return 5, i },
	} {
		var count [seq]float64
		pairs := 0.0
		for i := range draws {
			step, r := key(i)
			positions := p.Apply(row(seq), step, r, nil)
			for j, at := range positions {
				count[at]++
				if j > 0 && at == positions[j-1]+1 {
					pairs++
				}
			}
		}
		share := float64(n) / (seq - 1)
		chi := 0.0
		for _, c := range count[:seq-1] {
			chi += (c - draws*share) * (c - draws*share) / (draws * share * (1 - share))
		}
		// 64 cells, of which 63 are free: mean about 63, deviation about 11.
		if chi > 120 || count[seq-1] != 0 {
			t.Errorf("%s: chi-square %.1f over 64 positions, last position %v", name, chi, count[seq-1])
		}
		wantPairs := draws * float64(seq-2) * share * float64(n-1) / (seq - 2)
		if math.Abs(pairs-wantPairs) > 5*math.Sqrt(wantPairs) {
			t.Errorf("%s: %v neighbouring pairs, want about %v", name, pairs, wantPairs)
		}
	}
}

func TestKeepSpecial(t *testing.T) {
	p := policy(t, Config{Scheme: SchemePerRow, Ratio: 0.5, KeepSpecial: true}, 3)
	for r := range 50 {
		ids := []int32{256, 1, 2, 257, 256, 3, 257, 256, 4, 5}
		positions := p.Apply(ids, 0, r, nil)
		// Half of ten is five; of the nine candidates four are not special.
		if !slices.Equal(positions, []int32{1, 2, 5, 8}) {
			t.Fatalf("row %d: masked %v", r, positions)
		}
	}
	if got := p.Apply([]int32{256, 257, 256, 9}, 0, 0, nil); len(got) != 0 {
		t.Errorf("masked %v in a row of separators", got)
	}
}

func TestWarmup(t *testing.T) {
	p := policy(t, Config{Scheme: SchemePerRow, Ratio: 0.2, Warmup: 10}, 3)
	for step, want := range map[int64]int{0: 0, 1: 2, 5: 10, 9: 18, 10: 20, 1000: 20} {
		if got := len(p.Apply(row(100), step, 0, nil)); got != want {
			t.Errorf("after %d steps: %d masked, want %d", step, got, want)
		}
	}
}

func TestApplyDoesNotAllocate(t *testing.T) {
	for _, scheme := range []string{SchemePerRow, SchemeReference} {
		p := policy(t, Config{Scheme: scheme, Ratio: 0.15}, 3)
		ids := row(512)
		positions := p.Apply(ids, 0, 0, nil)
		step := int64(0)
		if n := testing.AllocsPerRun(20, func() { step++; positions = p.Apply(ids, step, 1, positions) }); n != 0 {
			t.Errorf("%s: %v allocations per row", scheme, n)
		}
	}
}

func TestValidate(t *testing.T) {
	if errs := DefaultConfig().Validate(); len(errs) != 0 {
		t.Errorf("defaults: %v", errs)
	}
	for want, c := range map[string]Config{
		`masking.scheme = "x"`:        {Scheme: "x"},
		"masking.ratio = 0.7":         {Scheme: SchemePerRow, Ratio: 0.7},
		"masking.ratio = -0.1":        {Scheme: SchemePerRow, Ratio: -0.1},
		"masking.ratio = NaN":         {Scheme: SchemePerRow, Ratio: math.NaN()},
		"masking.warmup = -1":         {Scheme: SchemePerRow, Warmup: -1},
		"masking.keep_special = true": {Scheme: SchemeReference, KeepSpecial: true},
	} {
		errs := c.Validate()
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), want) {
			t.Errorf("%+v: %v, want one error that begins with %s", c, errs, want)
		}
		if _, err := New(c, maskID, nil, 0); err == nil {
			t.Errorf("New took %+v", c)
		}
	}
	if _, err := New(DefaultConfig(), -1, nil, 0); err == nil || !strings.Contains(err.Error(), "[MASK]") {
		t.Errorf("a tokenizer without [MASK]: %v", err)
	}
	if _, err := New(Config{Scheme: SchemeNone}, -1, nil, 0); err != nil {
		t.Errorf("scheme none needs no [MASK]: %v", err)
	}
}

// A row may be masked by anybody at any time; run with -race.
func TestPolicyIsShared(t *testing.T) {
	p := policy(t, DefaultConfig(), 1)
	want := slices.Clone(p.Apply(row(64), 9, 9, nil))
	done := make(chan []int32)
	for range 4 {
		go func() { done <- p.Apply(row(64), 9, 9, nil) }()
	}
	for range 4 {
		if got := <-done; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
