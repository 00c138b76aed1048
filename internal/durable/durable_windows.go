package durable

import (
	"errors"
	"syscall"
)

// Windows error codes of a full disk, see winerror.h.
const (
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskFull       = syscall.Errno(112)
)

// isDiskFull tells the errors of a full disk.
func isDiskFull(err error) bool {
	return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull)
}

// SyncDir does nothing: Windows cannot sync a folder, its file systems journal their entries.
func SyncDir(string) error { return nil }
