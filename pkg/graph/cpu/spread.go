package cpu

// spread runs a body over [0, n) in pieces of a fixed size, so that what a piece computes does not depend on the number of
// threads. It is made once, when a kernel is bound, so that running it allocates nothing.
type spread struct {
	pool  *Pool
	n     int
	grain int
	body  func(lo, hi, worker int)
	item  func(item, worker int)
}

// pieceElems is how many elements make a piece of element-wise work: some microseconds, and within the L2 cache.
const pieceElems = 1 << 14

func newSpread(pool *Pool, body func(lo, hi, worker int)) *spread {
	s := &spread{pool: pool, body: body}
	s.item = func(item, worker int) {
		lo := item * s.grain
		s.body(lo, min(lo+s.grain, s.n), worker)
	}
	return s
}

// elems runs the body over n elements.
func (s *spread) elems(n int) { s.run(n, pieceElems) }

// rows runs the body over n rows of the given width.
func (s *spread) rows(n, width int) { s.run(n, max(1, pieceElems/max(1, width))) }

func (s *spread) run(n, grain int) {
	s.n, s.grain = n, grain
	if n <= grain {
		s.body(0, n, 0)
		return
	}
	s.pool.Run(ceilDiv(n, grain), s.item)
}
