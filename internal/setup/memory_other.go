//go:build !linux && !darwin

package setup

// MachineMemory returns the bytes of this machine's memory, 0 where that is not known.
func MachineMemory() int64 { return 0 }

// PeakMemory returns the largest amount of memory that this process has held at a time, in bytes, 0 where that is not known.
func PeakMemory() int64 { return 0 }
