package dataset

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"meap/pkg/masking"
)

func perRow(t testing.TB, ratio float64) masking.Policy {
	t.Helper()
	p, err := masking.New(masking.Config{Scheme: masking.SchemePerRow, Ratio: ratio}, bytesTok.Mask(), bytesTok.Special(), 5)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func collator(t testing.TB, s *Stream, seq int, p masking.Policy, rows int, documentMask bool) *Collator {
	t.Helper()
	l, err := NewLoader(s, seq, 3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCollator(l, p, rows, documentMask)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// One row: <s>ab</s><s>cde</s><s> and the label f.
var threeDocuments = []int32{256, 'a', 'b', 257, 256, 'c', 'd', 'e', 257, 256, 'f'}

func TestCollateByHand(t *testing.T) {
	s := sharded(t, 259, 100, threeDocuments)
	const x = Ignore
	for _, c := range []struct {
		documentMask              bool
		labels, positions, starts []int32
		labelled                  int
	}{
		{false,
			[]int32{'a', 'b', 257, 256, 'c', 'd', 'e', 257, 256, 'f'},
			[]int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
			[]int32{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 10},
		{true,
			[]int32{'a', 'b', 257, x, 'c', 'd', 'e', 257, x, 'f'},
			[]int32{0, 1, 2, 3, 0, 1, 2, 3, 4, 0},
			[]int32{0, 0, 0, 0, 4, 4, 4, 4, 4, 9}, 8},
	} {
		for _, ratio := range []float64{0, 0.5} {
			var b Batch
			col := collator(t, s, 10, perRow(t, ratio), 1, c.documentMask)
			if err := col.Collate(1, 0, 1, &b); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(b.Labels, c.labels) || !slices.Equal(b.Positions, c.positions) || !slices.Equal(b.Starts, c.starts) || b.Labelled != c.labelled {
				t.Errorf("ratio %v: labels %v (%d)\npositions %v\nstarts %v", ratio, b.Labels, b.Labelled, b.Positions, b.Starts)
			}
			if len(b.Masked[0]) != int(10*ratio) {
				t.Errorf("ratio %v: masked %v", ratio, b.Masked[0])
			}
			for i, id := range b.Inputs {
				want := threeDocuments[i]
				if slices.Contains(b.Masked[0], int32(i)) {
					want = bytesTok.Mask()
				}
				if id != want {
					t.Errorf("ratio %v: input %d is %d, want %d", ratio, i, id, want)
				}
			}
			if n, err := col.Labelled(1, &Batch{}); n != c.labelled || err != nil {
				t.Errorf("labelled %d, %v", n, err)
			}
		}
	}
}

// The rows of a step, with their masks, are the same for any split into
// micro-batches, and the first step has no completed step before it.
func TestMicroBatchesAreTheStep(t *testing.T) {
	s := sharded(t, 259, 64, counting(1000, 256))
	for _, scheme := range []string{masking.SchemePerRow, masking.SchemeReference} {
		p, err := masking.New(masking.Config{Scheme: scheme, Ratio: 0.3}, bytesTok.Mask(), nil, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, documentMask := range []bool{false, true} {
			c := collator(t, s, 15, p, 12, documentMask)
			for step := int64(1); step <= 12; step++ { // more than two epochs
				var all Batch
				if err := c.Collate(step, 0, 12, &all); err != nil {
					t.Fatal(err)
				}
				labelled, err := c.Labelled(step, &Batch{})
				if err != nil || labelled != all.Labelled {
					t.Errorf("step %d: %d labels, then %d, %v", step, all.Labelled, labelled, err)
				}
				for _, micro := range []int{1, 2, 3, 4, 6} {
					var b Batch
					for first := 12 - micro; first >= 0; first -= micro { // in another order
						if err := c.Collate(step, first, micro, &b); err != nil {
							t.Fatal(err)
						}
						from, to := first*15, (first+micro)*15
						if !slices.Equal(b.Inputs, all.Inputs[from:to]) || !slices.Equal(b.Labels, all.Labels[from:to]) ||
							!slices.Equal(b.Positions, all.Positions[from:to]) || !slices.Equal(b.Starts, all.Starts[from:to]) {
							t.Fatalf("step %d, %d rows from %d differ", step, micro, first)
						}
					}
				}
				ids := make([]int32, 15)
				if want := p.Apply(ids, step-1, 7, nil); !slices.Equal(all.Masked[7], want) {
					t.Errorf("step %d row 7: masked %v, want %v", step, all.Masked[7], want)
				}
			}
		}
	}
}

func TestCollateRefuses(t *testing.T) {
	s := sharded(t, 259, 64, counting(100, 256))
	l, err := NewLoader(s, 9, 3) // 10 rows
	if err != nil {
		t.Fatal(err)
	}
	for rows, word := range map[int]string{0: "trainer.micro_batch", 11: "has 10 rows of 10 tokens, and one step takes 11"} {
		if _, err := NewCollator(l, masking.None(), rows, false); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
	c, err := NewCollator(l, masking.None(), 10, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][3]int{{0, 0, 1}, {1, -1, 1}, {1, 0, 0}, {1, 0, 11}, {1, 9, 2}} {
		if err := c.Collate(int64(bad[0]), bad[1], bad[2], &Batch{}); err == nil {
			t.Errorf("collated %v", bad)
		}
	}
}

func TestCollateDoesNotAllocate(t *testing.T) {
	c := collator(t, sharded(t, 259, 512, counting(5000, 256)), 64, perRow(t, 0.15), 8, true)
	var b Batch
	step := int64(1)
	collate := func() {
		if err := c.Collate(step, 0, 8, &b); err != nil {
			t.Fatal(err)
		}
		step++
	}
	collate()
	if n := testing.AllocsPerRun(50, collate); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}

func TestInspect(t *testing.T) {
	s := sharded(t, 259, 100, []int32{256, 'a', '\n', 0xc3, 0xa4, 0xff, 257, 256, '\t', 'z'})
	var b Batch
	if err := collator(t, s, 9, masking.None(), 1, true).Collate(1, 0, 1, &b); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int32{1, 2, 8} { // masks of our choice
		b.Inputs[i] = 258
	}
	b.Masked[0] = []int32{1, 2, 8}
	rows := Inspect(&b, bytesTok)
	want := []Segment{
		{Start: 0, IDs: []int32{256}, Text: "<s>"},
		{Start: 1, IDs: []int32{258, 258}, Text: "[MASK][MASK]", Masked: true, Original: "a⏎", OriginalIDs: []int32{'a', '\n'}},
		{Start: 3, IDs: []int32{0xc3, 0xa4, 0xff, 257, 256}, Text: `ä\xff</s><s>`},
		{Start: 8, IDs: []int32{258}, Text: "[MASK]", Masked: true, Original: "→", OriginalIDs: []int32{'\t'}},
	}
	got, _ := json.Marshal(rows[0].Segments)
	if wanted, _ := json.Marshal(want); string(got) != string(wanted) {
		t.Errorf("segments %s\nwant     %s", got, wanted)
	}
	if r := rows[0]; r.Labelled != 8 || !slices.Equal(r.Documents, []int32{0, 7}) || !slices.Equal(r.Masked, []int32{1, 2, 8}) || r.Tokens != 9 || r.Step != 1 {
		t.Errorf("%+v", r)
	}
	text := rows[0].String()
	for _, part := range []string{"9 tokens, 3 masked (33.3 %), 8 labelled", `<s>[MASK][MASK]ä\xff</s><s>[MASK]`, `1:"a⏎" 8:"→"`} {
		if !strings.Contains(text, part) {
			t.Errorf("%q lacks %q", text, part)
		}
	}
}
