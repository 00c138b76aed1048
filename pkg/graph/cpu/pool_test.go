package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestPoolRunsEveryItemOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		p := NewPool(threads)
		for _, n := range []int{0, 1, 2, 3, 7, 100, 1000} {
			seen := make([]int32, n)
			var bad atomic.Bool
			p.Run(n, func(item, worker int) {
				if worker < 0 || worker >= threads {
					bad.Store(true)
				}
				atomic.AddInt32(&seen[item], 1)
			})
			for i, s := range seen {
				if s != 1 {
					t.Fatalf("%d threads, %d items: item %d ran %d times", threads, n, i, s)
				}
			}
			if bad.Load() {
				t.Fatalf("%d threads: worker number out of range", threads)
			}
		}
		p.Close()
	}
}

// Items see what the caller wrote before Run, and the caller sees what they
// wrote, without atomics: the race detector checks the hand-over.
func TestPoolPublishesMemory(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	in, out := make([]int, 50), make([]int, 50)
	fn := func(item, _ int) { out[item] = 2 * in[item] }
	for round := range 500 {
		for i := range in {
			in[i] = round + i
		}
		n := 1 + round%50
		p.Run(n, fn)
		for i := range n {
			if out[i] != 2*(round+i) {
				t.Fatalf("round %d item %d: %d", round, i, out[i])
			}
		}
		if round%100 == 99 {
			time.Sleep(5 * spinFor) // from parked workers as well as polling ones
		}
	}
}

// Per-worker scratch is never used by two items at once.
func TestPoolWorkerOwnsScratch(t *testing.T) {
	p := NewPool(4)
	defer p.Close()
	var inUse [4]atomic.Bool
	scratch := make([]int, 4)
	var shared atomic.Bool
	for range 100 {
		p.Run(64, func(_, worker int) {
			if inUse[worker].Swap(true) {
				shared.Store(true)
			}
			scratch[worker]++
			runtime.Gosched()
			inUse[worker].Store(false)
		})
	}
	if shared.Load() {
		t.Fatal("two items ran at once under one worker number")
	}
	sum := 0
	for _, s := range scratch {
		sum += s
	}
	if sum != 6400 {
		t.Fatalf("ran %d items, want 6400", sum)
	}
}

func TestPoolNestedAndConcurrent(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	var wg sync.WaitGroup
	var total atomic.Int64
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				p.Run(5, func(int, int) {
					p.Run(3, func(int, int) { total.Add(1) })
				})
			}
		}()
	}
	wg.Wait()
	if got := total.Load(); got != 4*50*5*3 {
		t.Fatalf("%d inner items, want %d", got, 4*50*5*3)
	}
}

func TestPoolAllocatesNothing(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	var n atomic.Int64
	fn := func(int, int) { n.Add(1) }
	if a := testing.AllocsPerRun(200, func() { p.Run(16, fn) }); a != 0 {
		t.Fatalf("%v allocations per Run, want 0", a)
	}
}

// A caller whose workers take long sleeps until they are done, again and again.
func TestPoolCallerWaits(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	for range 50 {
		var done atomic.Int64
		p.Run(3, func(item, worker int) {
			if worker > 0 {
				time.Sleep(2 * waitFor * time.Duration(1+item))
			} else {
				time.Sleep(waitFor / 4) // so that others join
			}
			done.Add(1)
		})
		if done.Load() != 3 {
			t.Fatalf("Run returned with %d of 3 items done", done.Load())
		}
	}
}

func TestPoolParks(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	p.Run(10, func(int, int) {})
	deadline := time.Now().Add(10 * time.Second)
	for {
		parked := 0
		for _, w := range p.workers {
			if w.parked.Load() {
				parked++
			}
		}
		if parked == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 2 workers parked", parked)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPoolAfterClose(t *testing.T) {
	before := runtime.NumGoroutine()
	p := NewPool(4)
	p.Run(100, func(int, int) {})
	p.Close()
	p.Close()
	ran := 0
	p.Run(5, func(int, int) { ran++ })
	if ran != 5 {
		t.Fatalf("%d items after Close, want 5", ran)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Fatalf("%d goroutines before, %d after Close", before, after)
	}
}
