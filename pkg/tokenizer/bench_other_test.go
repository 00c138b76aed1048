//go:build !unix

package tokenizer

import (
	"testing"
	"time"
)

var started = time.Now()

// processorTime returns elapsed time, where there is no other clock.
func processorTime(testing.TB) time.Duration { return time.Since(started) }
