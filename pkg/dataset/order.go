package dataset

// Order is the pseudo-random order of n things in one epoch, which (seed, epoch) determines. It is computed, not stored: nothing
// needs to be kept or replayed to go on in its middle.
type Order struct{ permutation }

// NewOrder returns the order of n > 0 things.
func NewOrder(n int64, seed uint64, epoch int64) Order { return Order{newPermutation(n, seed, epoch)} }

// At returns the thing, 0 to n-1, that is the i-th.
func (o *Order) At(i int64) int64 { return o.at(i) }

// Resize makes b hold rows of seq tokens, keeping its memory where that suffices. What the rows held stays until it is written over.
func (b *Batch) Resize(rows, seq int) {
	b.resize(rows, seq)
	b.Labelled = 0
	for r := range b.Masked {
		b.Masked[r] = b.Masked[r][:0]
	}
}

// Original returns a row's tokens before masking, [Seq], for whoever makes a batch to fill and Inspect to show.
func (b *Batch) Original(row int) []int32 {
	at := row * (b.Seq + 1)
	return b.original[at : at+b.Seq]
}
