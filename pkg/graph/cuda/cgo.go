//go:build gpu && linux

package cuda

// The trampolines define what -lcuda of gorgonia.org/cu would; lib holds an empty library of that name.

// #cgo LDFLAGS: -L${SRCDIR}/lib -ldl
import "C"
