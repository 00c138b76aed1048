//go:build unix

package tokenizer

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime returns what this process has used, in user and system mode.
func processorTime(b testing.TB) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
