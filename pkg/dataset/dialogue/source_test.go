package dialogue

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/tokenizer"
)

const no = dataset.Ignore

// TestTwoTurnsByHand has every id, label, mask, position and start of a two-turn dialogue written down. Answers of one token make the
// masked positions certain: max(1, floor(1 * ratio)) of one.
func TestTwoTurnsByHand(t *testing.T) {
	type row struct{ inputs, labels, positions, starts, masked []int32 }
	rows := func(c Config, seq, n int) []row {
		o := options(t, c, seq)
		b := collate(t, source(t, examples(t, o, say("hi", "A", "?", "B")), o, n), 1, 0, n)
		var all []row
		labelled := 0
		for r := range n {
			at, to := r*seq, (r+1)*seq
			all = append(all, row{b.Inputs[at:to], b.Labels[at:to], b.Positions[at:to], b.Starts[at:to], append([]int32{}, b.Masked[r]...)})
			for _, l := range b.Labels[at:to] {
				if l != no {
					labelled++
				}
			}
		}
		if b.Labelled != labelled {
			t.Errorf("Labelled = %d, there are %d", b.Labelled, labelled)
		}
		return all
	}
	check := func(name string, got, want []row) {
		t.Helper()
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("%s, row %d:\n got %v\nwant %v", name, i, got[i], want[i])
			}
		}
	}
	// <s> h i \n A </s> ? \n B </s>: ten tokens, nine inputs.
	//   0  1 2  3 4    5 6  7 8    9
	c := Config{Copies: CopiesRows, Ratio: 0.1, MinTarget: 0}
	a := row{
		inputs:    []int32{bos, 'h', 'i', '\n', 'A', eos, '?', '\n', 'B', eos, eos},
		labels:    []int32{no, no, no, 'A', eos, no, no, 'B', eos, no, no},
		positions: []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0},
		starts:    []int32{0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 10},
		masked:    []int32{},
	}
	b := row{
		inputs:    []int32{bos, 'h', 'i', '\n', mask, eos, '?', '\n', mask, eos, eos},
		labels:    []int32{no, no, no, 'A', no, no, no, 'B', no, no, no},
		positions: a.positions,
		starts:    a.starts,
		masked:    []int32{4, 8},
	}
	check("rows", rows(c, 11, 2), []row{a, b})

	// Both copies in one row; the second begins at 9.
	packed := row{
		inputs:    append(slices.Clone(a.inputs[:9]), append(slices.Clone(b.inputs[:9]), eos)...),
		labels:    append(slices.Clone(a.labels[:9]), append(slices.Clone(b.labels[:9]), no)...),
		positions: []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0},
		starts:    []int32{0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 18},
		masked:    []int32{13, 17},
	}
	check("rows, packed", rows(c, 19, 1), []row{packed})

	// One after the other: the end of the first copy is an input too.
	c.Copies = CopiesConcat
	concat := row{
		inputs:    append(append(slices.Clone(a.inputs[:9]), eos), b.inputs[:9]...),
		labels:    append(append(slices.Clone(a.labels[:9]), no), b.labels[:9]...),
		positions: []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8},
		starts:    []int32{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 10, 10, 10, 10, 10, 10, 10, 10},
		masked:    []int32{14, 18},
	}
	check("concat", rows(c, 19, 1), []row{concat})

	c.ConcatVisible = true
	concat.positions = []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}
	concat.starts = make([]int32, 19)
	check("concat, visible", rows(c, 19, 1), []row{concat})

	c = Config{Copies: CopiesRows, Ratio: 0}
	check("ratio 0", rows(c, 11, 2), []row{a, a}) // the second is the next epoch's
}

// dialogues makes a data set of n dialogues of random lengths.
func dialogues(n int) [][]Message {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var all [][]Message
	for i := range n {
		m := say(fmt.Sprintf("question %d", i), strings.Repeat("x", 1+r.IntN(90)))
		if r.IntN(2) == 0 {
			m = append(m, say("and", strings.Repeat("yz", 1+r.IntN(40)))...)
		}
		all = append(all, m)
	}
	return all
}

// part is what a row holds between two starts.
type part struct {
	inputs, labels []int32
	masked         int
}

// parts takes a batch's rows apart, and checks what must hold for any.
func parts(t *testing.T, b *dataset.Batch) (all []part) {
	t.Helper()
	for r := range b.Rows {
		at := r * b.Seq
		for i := 0; i < b.Seq; {
			end := i + 1
			for end < b.Seq && b.Starts[at+end] == b.Starts[at+i] {
				end++
			}
			for j := i; j < end; j++ {
				if b.Starts[at+j] != int32(i) || b.Positions[at+j] != int32(j-i) {
					t.Fatalf("row %d, token %d: start %d and position %d in a document that begins at %d", r, j, b.Starts[at+j], b.Positions[at+j], i)
				}
			}
			p := part{inputs: b.Inputs[at+i : at+end], labels: b.Labels[at+i : at+end]}
			for _, m := range b.Masked[r] {
				if int(m) >= i && int(m) < end {
					p.masked++
				}
			}
			if end-i > 1 { // else padding
				all = append(all, p)
			} else if p.labels[0] != no {
				t.Fatalf("row %d: padding at %d has the label %d", r, i, p.labels[0])
			}
			i = end
		}
	}
	return all
}

// TestEpochHoldsEveryExampleOnce takes the rows of several epochs apart and finds in each epoch both copies of every example once,
// in the same step, with the labels of the objective and fresh masks.
func TestEpochHoldsEveryExampleOnce(t *testing.T) {
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.2, MinTarget: 20}, 256)
	all := examples(t, o, dialogues(61)...)
	s := source(t, all, o, 3)
	find := func(inputs []int32) int {
		for i, e := range all {
			if len(e.IDs) == len(inputs)+1 && slices.EqualFunc(e.IDs[:len(inputs)], inputs, func(a, b int32) bool { return a == b || b == mask }) {
				return i
			}
		}
		t.Fatalf("no example is %q", tokenizer.ByteLevel{}.Decode(inputs))
		return -1
	}
	const epochs = 3
	unmasked := make([]int, len(all))
	masks := make([][]string, len(all))
	for step := int64(1); s.Epochs(step) <= epochs; step++ {
		balance := map[int]int{}
		for _, p := range parts(t, collate(t, s, step, 0, 3)) {
			i := find(p.inputs)
			e := all[i]
			want := slices.Repeat([]int32{no}, len(p.inputs))
			if p.masked == 0 {
				unmasked[i]++
				balance[i]++
				for _, a := range e.Answers {
					copy(want[a.Start-1:], e.IDs[a.Start:a.End+1])
				}
			} else {
				balance[i]--
				masks[i] = append(masks[i], fmt.Sprint(p.inputs))
				for _, a := range e.Answers {
					n := 0
					for j := a.Start; j < a.End; j++ {
						if p.inputs[j] == mask {
							want[j-1] = e.IDs[j]
							n++
						}
					}
					if n != o.Policy.Count(a.Len()) {
						t.Errorf("an answer of %d tokens has %d masked", a.Len(), n)
					}
				}
			}
			if !slices.Equal(p.labels, want) {
				t.Fatalf("example %d:\nlabels %v\n  want %v", i, p.labels, want)
			}
		}
		for i, n := range balance {
			if want := 0; o.Policy.Masks(all[i].Answers) && n != want {
				t.Errorf("step %d has one copy of example %d", step, i)
			}
		}
	}
	for i, n := range unmasked {
		if n != epochs && n != epochs-1 && n != epochs+1 { // the last step may end in the middle of an epoch
			t.Errorf("example %d was seen %d times in %d epochs", i, n, epochs)
		}
		if slices.Sort(masks[i]); len(all[i].IDs) > 100 && len(slices.Compact(slices.Clone(masks[i]))) != len(masks[i]) {
			t.Errorf("example %d has the same masks in two epochs", i)
		}
	}
}

// TestSplitAndOrderOfCallsChangeNothing collates steps forwards in whole and backwards row by row, from a source of its own.
func TestSplitAndOrderOfCallsChangeNothing(t *testing.T) {
	for _, c := range []Config{{Copies: CopiesRows, Ratio: 0.2, MinTarget: 20}, {Copies: CopiesConcat, Ratio: 0.2, MinTarget: 20}} {
		o := options(t, c, 400)
		all := examples(t, o, dialogues(40)...)
		const rows, steps = 4, 30
		straight, other := source(t, all, o, rows), source(t, all, o, rows)
		whole := map[int64]*dataset.Batch{}
		for step := int64(1); step <= steps; step++ {
			whole[step] = collate(t, straight, step, 0, rows)
		}
		for step := int64(steps); step > 0; step-- {
			for r := rows - 1; r >= 0; r-- {
				got, want, from, to := collate(t, other, step, r, 1), whole[step], r*o.Seq, (r+1)*o.Seq
				if !slices.Equal(got.Inputs, want.Inputs[from:to]) || !slices.Equal(got.Labels, want.Labels[from:to]) ||
					!slices.Equal(got.Positions, want.Positions[from:to]) || !slices.Equal(got.Starts, want.Starts[from:to]) ||
					!slices.Equal(got.Masked[0], want.Masked[r]) {
					t.Fatalf("%s: row %d of step %d is another one when it is asked for by itself", c.Copies, r, step)
				}
			}
		}
	}
}

func TestInspect(t *testing.T) {
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.1}, 11)
	b := collate(t, source(t, examples(t, o, say("hi", "A")), o, 1), 1, 0, 1)
	text := Inspect(b, tokenizer.ByteLevel{})[0].String()
	if want := "hidden: 9:\"A\"\nlearnt: 3:\"A</s>\" 8:\"A\"\n"; !strings.HasSuffix(text, want) {
		t.Errorf("the row is shown as\n%s\nwant it to end with\n%s", text, want)
	}
}

func TestOneRowIsTooFewForTwoCopies(t *testing.T) {
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.1}, 10)
	if _, err := NewSource(examples(t, o, say("hi", "abc")), o, 1, 3); err == nil || !strings.Contains(err.Error(), "trainer.micro_batch x trainer.accumulate = 1") {
		t.Errorf("error %v", err)
	}
	if _, err := NewSource(examples(t, o, say("hi", "abc")), o, 2, 3); err != nil {
		t.Error(err)
	}
}

func TestHeldOut(t *testing.T) {
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.2, MinTarget: 3}, 40)
	all := examples(t, o, say("hi", "abcdef"), say("a longer question", "yes"), say("?", "ja", "?", "né"))
	h := NewHeldOut(all, o)
	if h.Rows() != 2 {
		t.Fatalf("%d rows, want 2", h.Rows())
	}
	var b dataset.Batch
	if err := h.Fill(0, 3, &b); err != nil {
		t.Fatal(err)
	}
	got := parts(t, &b)
	labels := 0
	for i, p := range got {
		if e := all[i]; !slices.Equal(p.inputs, e.IDs[:len(e.IDs)-1]) || p.masked > 0 {
			t.Errorf("part %d is %q", i, tokenizer.ByteLevel{}.Decode(p.inputs))
		}
		for j, l := range p.labels {
			if l != no && l != all[i].IDs[j+1] {
				t.Errorf("part %d: label %d of token %d", i, l, j)
			}
			if l != no {
				labels++
			}
		}
	}
	if want := 7 + 4 + 3 + 4; len(got) != 3 || labels != want || b.Labelled != want || int(Labels(all)) != want {
		t.Errorf("%d parts with %d labels (%d, %d), want 3 with %d", len(got), labels, b.Labelled, Labels(all), want)
	}
	if got, want := h.BytesPerToken(), 14.0/18; got != want {
		t.Errorf("%v bytes for each label, want %v", got, want)
	}
}
