package graph

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomLowered makes instructions that read what came before, with some that write one of their operands.
func randomLowered(rng *rand.Rand) *lowered {
	l := &lowered{}
	for i := range 2 + rng.IntN(3) {
		l.add(value{desc: Of(F32, 1+rng.IntN(700)), input: fmt.Sprint("input ", i)})
	}
	for range 1 + rng.IntN(40) {
		in := &instr{}
		for range 1 + rng.IntN(3) {
			near := min(len(l.values), 1+rng.IntN(12)) // mostly recent values
			in.in = append(in.in, len(l.values)-1-rng.IntN(near))
		}
		if rng.IntN(6) == 0 {
			in.out = append(in.out, in.in[0])
		}
		for len(in.out) == 0 || rng.IntN(3) == 0 {
			in.out = append(in.out, l.add(value{desc: Of(F32, 1+rng.IntN(700))}))
		}
		l.instrs = append(l.instrs, in)
	}
	for range 1 + rng.IntN(3) {
		l.roots = append(l.roots, rng.IntN(len(l.values)))
	}
	return l
}

// mayOverwrite is an operator that may, in a device's opinion that the test gives: its last operand only, or any.
type mayOverwrite struct{ last int }

func (m mayOverwrite) operand(k int) bool { return m.last < 0 || k == m.last }

func (mayOverwrite) Infer(in []Desc) []Desc { return in }

// The plan is run on paper: every block of the arena remembers which value was written to it last. An instruction must find
// its operands whole, must not write over an operand or a second output, but where a result may overwrite an operand, and the roots
// must be there in the end.
func TestPlanKeepsWhatIsNeeded(t *testing.T) {
	shared, overwritten := 0, 0
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		l := randomLowered(rng)
		may := seed%2 == 1
		if may {
			for i := range l.values { // sizes of which many are alike
				l.values[i].desc = Of(F32, 100+100*(l.values[i].desc.Shape[0]%2))
			}
			for _, in := range l.instrs {
				if rng.IntN(2) == 0 {
					in.spec = mayOverwrite{-1}
					if rng.IntN(2) == 0 {
						in.spec = mayOverwrite{len(in.in) - 1}
					}
				}
			}
			l.overwrite(func(s Spec, operand int) bool {
				may, ok := s.(mayOverwrite)
				return ok && may.operand(operand)
			})
			overwritten += len(l.over)
		}
		p := l.plan()
		if p.Arena > p.Unshared {
			t.Fatalf("seed %d: the arena has %d bytes, separate buffers %d", seed, p.Arena, p.Unshared)
		}
		if p.Arena < p.Unshared {
			shared++
		}
		blocks := make([]int, p.Arena/alignment)
		for b := range blocks {
			blocks[b] = -1
		}
		of := func(v int) []int {
			from, n := p.offset[v], l.values[v].desc.Bytes()
			if from%alignment != 0 || from+n > p.Arena {
				t.Fatalf("seed %d: value %d of %d bytes at %d in an arena of %d", seed, v, n, from, p.Arena)
			}
			return blocks[from/alignment : (from+n+alignment-1)/alignment]
		}
		whole := func(v int, when string) {
			if !l.values[v].planned() {
				return
			}
			for _, owner := range of(v) {
				if owner != v {
					t.Fatalf("seed %d: %s value %d has lost a block to value %d", seed, when, v, owner)
				}
			}
		}
		for i, in := range l.instrs {
			for _, v := range in.in {
				whole(v, fmt.Sprintf("before instruction %d", i))
			}
			over := map[int]bool{} // operands that may be lost
			for _, v := range in.out {
				if u, ok := l.over[v]; ok {
					may, ok := in.spec.(mayOverwrite)
					over[u] = ok
					for k, w := range in.in {
						over[u] = over[u] && (w != u || may.operand(k))
					}
				}
				if l.values[v].planned() {
					for b := range of(v) {
						of(v)[b] = v
					}
				}
			}
			for _, v := range slices.Concat(in.in, in.out) {
				if !over[v] {
					whole(v, fmt.Sprintf("in instruction %d", i))
				}
			}
		}
		for _, v := range l.roots {
			whole(v, "in the end")
		}
	}
	if shared < 800 || overwritten < 500 {
		t.Errorf("only %d of 1000 plans share memory, and %d results overwrite an operand: the test proves little", shared, overwritten)
	}
}

func TestPlanOfAChainNeedsTwoBuffers(t *testing.T) {
	l := &lowered{}
	at := l.add(value{desc: Of(F32, 100), input: "x"})
	for range 50 {
		next := l.add(value{desc: Of(F32, 100)})
		l.instrs = append(l.instrs, &instr{in: []int{at}, out: []int{next}})
		at = next
	}
	l.roots = []int{at}
	p := l.plan()
	if want := 2 * 512; p.Arena != want || p.Unshared != 50*512 {
		t.Errorf("arena %d of %d bytes, want %d of %d", p.Arena, p.Unshared, want, 50*512)
	}
	if p.Kernels != 50 || p.InputBytes() != 400 || !slices.Equal(p.Names, []string{"x"}) {
		t.Errorf("%d kernels, %d input bytes of %v", p.Kernels, p.InputBytes(), p.Names)
	}
}
