package cpu

import (
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Signals interrupt kernels that hold tile registers: those of the scheduler, of
// the profiler, and a storm of our own; and collections move goroutines to other
// threads. Results stay the same to the last bit.
func TestAMXUnderSignals(t *testing.T) {
	if DetectISA() < AMX {
		t.Skip("this machine has no AMX")
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Log("the test's own profile is running:", err)
	} else {
		defer pprof.StopCPUProfile()
	}
	const m, n, kk = 150, 260, 700
	a, b := normals(1, m*kk), normals(2, n*kk)
	want := make([]float32, m*n)
	newTestKernels(t, AMX, 1).NT(want, a, b, m, n, kk, true, false)
	duration := time.Second
	if testing.Short() {
		duration /= 5
	}
	var stop atomic.Bool
	time.AfterFunc(duration, func() { stop.Store(true) })
	var wg sync.WaitGroup
	var products atomic.Int64
	for g := range 2*runtime.GOMAXPROCS(0) + 1 {
		k := newTestKernels(t, AMX, 1+g%2)
		wg.Go(func() {
			c := make([]float32, m*n)
			for !stop.Load() {
				k.NT(c, a, b, m, n, kk, true, false)
				products.Add(1)
				if !slices.Equal(c, want) {
					t.Error("a product under signals differs")
					return
				}
			}
		})
	}
	alarms := make(chan os.Signal, 1)
	signal.Notify(alarms, unix.SIGALRM)
	defer signal.Stop(alarms)
	every := unix.Timeval{Usec: 50}
	if _, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{Interval: every, Value: every}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{})
	for !stop.Load() {
		<-alarms
		runtime.GC()
	}
	wg.Wait()
	t.Logf("%d products, some %d signals", products.Load(), duration/(50*time.Microsecond))
}
