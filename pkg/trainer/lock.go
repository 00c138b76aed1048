package trainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"

	"meap/internal/durable"
)

// lockFile is the file in a run's output folder that is locked while a process trains there. It stays there unlocked afterwards: removing
// it would let two processes lock two files of the same name.
const lockFile = ".lock"

// LockedError says that another process trains in the same output folder.
type LockedError struct {
	Output string
	PID    int // of that process; 0 where it cannot be read
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("output folder %s is in use by %s: wait for it to end, stop it, or choose another --output", e.Output, who)
}

// Lock keeps other processes out of an output folder. The system drops it when the process ends, however it ends.
type Lock struct {
	flock *flock.Flock
}

// LockOutput locks a run's output folder, which is created where it is missing. It does not wait: a folder in use is a *LockedError.
func LockOutput(output string) (*Lock, error) {
	if err := os.MkdirAll(output, 0o755); err != nil {
		return nil, fmt.Errorf("create the output folder: %w; name a folder that can be written with --output", durable.DescribeDiskFull(err, output))
	}
	path := filepath.Join(output, lockFile)
	l := flock.New(path, flock.SetPermissions(0o644))
	locked, err := l.TryLock()
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("output folder %s cannot be written: %w; change its permissions, or choose another --output", output, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock output folder %s (does its file system support locks? if not, choose another --output): %w", output, err)
	}
	if !locked {
		return nil, &LockedError{Output: output, PID: readPID(path)}
	}
	// The number only serves the other process's message, so it does not matter where it cannot be written (a full disk; on Windows
	// the locked file is closed to others).
	_ = os.WriteFile(path, strconv.AppendInt(nil, int64(os.Getpid()), 10), 0o644)
	return &Lock{flock: l}, nil
}

// CheckOutput reports whether LockOutput could write an output folder, which it does not create: hours may go by before it is needed.
func CheckOutput(output string) error {
	there := filepath.Clean(output)
	for {
		if _, err := os.Stat(there); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(there) == there {
			break
		}
		there = filepath.Dir(there)
	}
	probe, err := os.CreateTemp(there, durable.TemporaryPrefix+"*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		return fmt.Errorf("the output folder %s cannot be written: %w; name one that can with --output", output, err)
	}
	return nil
}

// Unlock gives the folder free.
func (l *Lock) Unlock() error {
	if err := l.flock.Unlock(); err != nil {
		return fmt.Errorf("unlock %s: %w", l.flock.Path(), err)
	}
	return nil
}

func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
