package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// spinFor is how long an idle worker polls for the next call before it parks.
// Training issues a product every few hundred microseconds, generating a token one
// every hundred with work for a single thread between them, and waking a parked
// goroutine costs 5 to 50 of them. So polling across the gap is what makes small
// products scale: at 40 microseconds generation was 8 % slower. A longer spin would
// only burn the core between steps.
const spinFor = 200 * time.Microsecond

// waitFor is how long the caller of Run polls for workers that still have an item.
const waitFor = 100 * time.Microsecond

// spinCheck is the number of polls between two looks at the clock.
const spinCheck = 128

// Bits of Pool.state: the number of the run, whether workers may still join it,
// and how many have.
const (
	stateRun  = 1 << 32
	stateOpen = 1 << 31
	stateIn   = stateOpen - 1
)

// Pool runs the items of a kernel on a fixed number of threads. The goroutine
// that calls Run is one of them; the others poll for work for some microseconds
// and then park, so that an idle pool leaves the machine idle.
//
// Run may be called from several goroutines and from inside an item. A call
// that finds the pool busy runs its items itself, one after the other.
type Pool struct {
	threads int
	workers []*worker
	busy    sync.Mutex // held by the goroutine whose Run owns the workers
	exited  sync.WaitGroup

	// fn and n belong to the current run: written before state publishes it,
	// read only by those who joined it.
	fn func(item, worker int)
	n  int64

	_     [64]byte // the counters below are hot in several cores' caches
	state atomic.Uint64
	_     [56]byte
	next  atomic.Int64
	_     [56]byte
	left  atomic.Int64
	_     [56]byte
	quit  atomic.Bool

	// The caller of Run sets waiting before it sleeps; the worker that clears it wakes the caller.
	waiting atomic.Bool
	resume  chan struct{}
}

type worker struct {
	parked atomic.Bool
	wake   chan struct{}
	_      [48]byte
}

// NewPool returns a pool of the given number of threads, the caller of Run
// included. A number below 1 stands for one thread per processor available
// (GOMAXPROCS). Close releases the goroutines.
func NewPool(threads int) *Pool {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{threads: threads, workers: make([]*worker, threads-1), resume: make(chan struct{}, 1)}
	for i := range p.workers {
		w := &worker{wake: make(chan struct{}, 1)}
		p.workers[i] = w
		p.exited.Add(1)
		go p.loop(w, i+1)
	}
	return p
}

// Threads is the number of threads that take part in a Run.
func (p *Pool) Threads() int { return p.threads }

// Run calls fn(item, worker) once for every item in [0, n) and returns when all
// of them are done. Items start in ascending order but run concurrently, each
// on whichever thread is free, so fn must give the same result on any of them.
// 0 <= worker < Threads() names the thread within this Run: fn may own scratch
// space by it. Run itself allocates nothing; pass a function built beforehand.
func (p *Pool) Run(n int, fn func(item, worker int)) {
	if n <= 1 || p.threads == 1 || p.quit.Load() || !p.busy.TryLock() {
		for i := range n {
			fn(i, 0)
		}
		return
	}
	p.fn, p.n = fn, int64(n)
	p.next.Store(0)
	p.left.Store(0)
	p.state.Store(p.state.Load()&^(stateRun-1) + stateRun | stateOpen)
	for _, w := range p.workers[:min(n, p.threads)-1] {
		w.unpark()
	}
	p.work(0)

	// No worker joins after this; those who did are waited for.
	var s uint64
	for {
		s = p.state.Load()
		if p.state.CompareAndSwap(s, s&^stateOpen) {
			break
		}
	}
	p.await(int64(s & stateIn))
	p.fn = nil
	p.busy.Unlock()
}

// await returns when the given number of workers have left the run. A worker that is
// not done soon has probably lost its processor to another program, and spinning
// would keep it from getting one back.
func (p *Pool) await(in int64) {
	var since time.Time
	for polls := 1; p.left.Load() < in; polls++ {
		if polls%spinCheck != 0 {
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < waitFor {
			runtime.Gosched()
			continue
		}
		p.waiting.Store(true)
		if p.left.Load() < in || !p.waiting.CompareAndSwap(true, false) {
			<-p.resume
		}
	}
}

// Close waits for the current Run and ends the workers. Later calls of Run are
// served by their callers alone.
func (p *Pool) Close() {
	p.busy.Lock()
	defer p.busy.Unlock()
	if p.quit.Swap(true) {
		return
	}
	for _, w := range p.workers {
		w.unpark()
	}
	p.exited.Wait()
}

func (p *Pool) work(worker int) {
	for {
		i := p.next.Add(1) - 1
		if i >= p.n {
			return
		}
		p.fn(int(i), worker)
	}
}

func (w *worker) unpark() {
	if w.parked.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
}

// loop is the life of worker number id. A worker joins a run by counting itself
// into the state word while the run is open: the caller, once it has closed
// the run, knows from the same word whom to wait for, and a worker that comes
// late touches nothing of it.
func (p *Pool) loop(w *worker, id int) {
	defer p.exited.Done()
	var (
		last  uint64 // the run this worker took part in
		polls int
		since time.Time
	)
	for {
		s := p.state.Load()
		if s&stateOpen != 0 && s/stateRun != last {
			if p.state.CompareAndSwap(s, s+1) {
				last = s / stateRun
				p.work(id)
				p.left.Add(1)
				if p.waiting.Load() && p.waiting.CompareAndSwap(true, false) {
					p.resume <- struct{}{}
				}
				polls = 0
			}
			continue
		}
		if p.quit.Load() {
			return
		}
		if polls++; polls%spinCheck != 0 {
			continue
		}
		now := time.Now()
		if polls == spinCheck {
			since = now
		}
		if now.Sub(since) < spinFor {
			// Where there are more threads than processors, whoever has the
			// work needs this one.
			runtime.Gosched()
			continue
		}
		w.parked.Store(true)
		if s := p.state.Load(); (s&stateOpen != 0 && s/stateRun != last || p.quit.Load()) && w.parked.CompareAndSwap(true, false) {
			polls = 0
			continue
		}
		<-w.wake
		polls = 0
	}
}
