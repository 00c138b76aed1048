// Package durable replaces files as a whole: after a crash, a power failure or a full disk the old content is there or the new one,
// never a part.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// TemporaryPrefix begins the names of files and folders that are being written. What a crash left under such a name is rubbish.
const TemporaryPrefix = ".tmp-"

// DiskFullError says in words that a disk is full, and what can be done about it.
type DiskFullError struct {
	Dir string // where the space is missing
	Err error  // what the system said
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("disk full: no space is left for %s (%v); what was saved before is untouched: free some space there, "+
		"then run the same command again", e.Dir, e.Err)
}

func (e *DiskFullError) Unwrap() error { return e.Err }

// DescribeDiskFull turns a full disk into a *DiskFullError and passes other errors on.
func DescribeDiskFull(err error, dir string) error {
	var known *DiskFullError
	if err == nil || errors.As(err, &known) || !isDiskFull(err) {
		return err
	}
	return &DiskFullError{Dir: dir, Err: err}
}

// WriteFile replaces a file's content.
func WriteFile(path string, data []byte) error {
	return Replace(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Replace is WriteFile for content that fill writes.
func Replace(path string, fill func(io.Writer) error) error {
	temporary, err := WriteTemporary(path, fill)
	if err != nil {
		return err
	}
	return Commit(temporary, path)
}

// WriteTemporary writes and syncs the content for path under a temporary name beside it, and returns that name for Commit. Where
// several files belong together, all of them are written before the first is committed.
func WriteTemporary(path string, fill func(io.Writer) error) (temporary string, err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, TemporaryPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", path, DescribeDiskFull(err, dir))
	}
	err = fill(file)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(file.Name())
		return "", fmt.Errorf("write %s: %w", path, DescribeDiskFull(err, dir))
	}
	return file.Name(), nil
}

// Commit gives a temporary file its name, durably.
func Commit(temporary, path string) error {
	err := os.Rename(temporary, path)
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("write %s: %w", path, DescribeDiskFull(err, filepath.Dir(path)))
	}
	return nil
}

// SyncTree makes every file and folder below root durable.
func SyncTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return SyncDir(path)
		case !e.Type().IsRegular():
			return nil
		}
		return syncFile(path)
	})
}

// MakeDir creates a folder with its parents and makes the entries on the way durable.
func MakeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MakeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// syncFile makes a file's content durable. It is opened for writing because Windows syncs no other.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
