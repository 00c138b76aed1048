//go:build unix

package cpu

import (
	"os"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"meap/pkg/graph"
)

// Memory that was touched is still zero, and reading and then writing it takes at least a page of the system less for each of its own.
func TestTouch(t *testing.T) {
	dev := open(t, 2, DetectISA())
	faults := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return int64(u.Minflt)
	}
	alloc := func(bytes int) graph.Memory {
		m, err := dev.Alloc("state", bytes)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	use := func(m graph.Memory) (pages int64) {
		before := faults()
		x := m.At(0, graph.Of(graph.F32, m.Bytes/4)).F32()
		for i, v := range x {
			if v != 0 {
				t.Fatalf("%d bytes: element %d is %v", m.Bytes, i, v)
			}
			x[i] = 1
		}
		return faults() - before
	}
	page := os.Getpagesize()
	for _, bytes := range []int{0, 4, page, page + 1} {
		m := alloc(bytes)
		dev.Touch(m)
		use(m)
	}
	const pages = 8000
	debug.FreeOSMemory() // so that what is allocated is new
	touched, other := alloc(pages*page+12), alloc(pages*page+12)
	dev.Touch(touched)
	n, untouched := use(touched), use(other)
	if untouched < pages {
		t.Skipf("the system gives %d pages for %d: larger ones, or those that it has given before", untouched, pages)
	}
	if n > untouched-pages {
		t.Errorf("%d pages are given while memory of %d is used that was touched, %d where it was not", n, pages, untouched)
	}
}
