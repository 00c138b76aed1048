package dialogue

import (
	"fmt"
	"sync"

	"meap/pkg/dataset"
)

// layout says which copies of which examples are where in the rows of an optimiser step. A step takes the examples of the epoch's
// order, one after the other and on into the next epoch, for as long as all copies of the next one find room; each goes to the first
// row that has it. So the layout of a step follows from the position of its first example, and that from the steps before: steps and
// seed are the whole state, and a run that is resumed counts through the examples' lengths, which takes no time to speak of.
type layout struct {
	pieces [][]int // of each example, see Options.pieces
	rows   int     // of an optimiser step
	seq    int
	seed   uint64

	mu     sync.Mutex
	starts []int64 // the position of the first example of each step known so far
	step   int64   // whose rows are in cached
	cached [][]piece
}

// piece is a part of an example in a row.
type piece struct {
	position int64 // of the example: epoch * examples + place in the epoch's order
	part     int   // index in Options.pieces
	start    int   // in the row
}

func newLayout(examples []Example, o Options, rows int, seed uint64) (*layout, error) {
	l := &layout{pieces: make([][]int, len(examples)), rows: rows, seq: o.Seq, seed: seed, starts: []int64{0}}
	for i, e := range examples {
		l.pieces[i] = o.pieces(e)
		if p := l.pieces[i]; rows == 1 && len(p) == 2 && p[0]+p[1] > o.Seq {
			return nil, fmt.Errorf("trainer.micro_batch x trainer.accumulate = 1: the two copies of a dialogue of %d tokens need two rows of trainer.seq = %d; raise one of them", p[0]+1, o.Seq)
		}
	}
	return l, nil
}

// example returns which example is at a position, and the epoch.
func (l *layout) example(position int64) (example, epoch int64) {
	n := int64(len(l.pieces))
	epoch = position / n
	order := dataset.NewOrder(n, l.seed, epoch)
	return order.At(position % n), epoch
}

// of returns the rows of a step; steps count from 1. The caller must not change them.
func (l *layout) of(step int64) [][]piece {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.step == step {
		return l.cached
	}
	for int64(len(l.starts)) < step {
		_, next := l.fill(l.starts[len(l.starts)-1])
		l.starts = append(l.starts, next)
	}
	rows, next := l.fill(l.starts[step-1])
	if int64(len(l.starts)) == step {
		l.starts = append(l.starts, next)
	}
	l.step, l.cached = step, rows
	return rows
}

// fill lays out the step that begins with the example at a position, and returns the position of the next step's first.
func (l *layout) fill(position int64) ([][]piece, int64) {
	rows, used := make([][]piece, l.rows), make([]int, l.rows)
	for ; ; position++ {
		example, _ := l.example(position)
		sizes := l.pieces[example]
		var places [2]int // the row of each part
		for part, size := range sizes {
			row := 0
			for row < l.rows && used[row]+size > l.seq {
				row++
			}
			if row == l.rows {
				for part > 0 { // an example is whole or not there
					part--
					row := places[part]
					rows[row] = rows[row][:len(rows[row])-1]
				}
				return rows, position
			}
			rows[row] = append(rows[row], piece{position, part, used[row]})
			used[row] += size
			places[part] = row
		}
	}
}

// position returns how many examples have been taken after a number of steps, over all epochs.
func (l *layout) position(steps int64) int64 {
	if steps == 0 {
		return 0
	}
	l.of(steps)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.starts[steps]
}
