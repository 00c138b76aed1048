package setup

import "golang.org/x/sys/unix"

// MachineMemory returns the bytes of this machine's memory, 0 where that is not known.
func MachineMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// PeakMemory returns the largest amount of memory that this process has held at a time, in bytes, 0 where that is not known.
func PeakMemory() int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Maxrss * 1024
}
