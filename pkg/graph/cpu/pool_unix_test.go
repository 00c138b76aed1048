//go:build unix

package cpu

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Once its workers have parked, a pool takes no processor time.
func TestPoolIdles(t *testing.T) {
	p := NewPool(4)
	defer p.Close()
	p.Run(100, func(int, int) {})
	time.Sleep(50 * time.Millisecond)
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const pause = 500 * time.Millisecond
	before := used()
	time.Sleep(pause)
	if busy := used() - before; busy > pause/20 {
		t.Errorf("an idle pool took %v of processor time in %v", busy, pause)
	}
}
