package trainer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// DiskFullError says in words that a disk is full, and what can be done about it.
type DiskFullError struct {
	Dir string // where the space is missing
	Err error  // what the system said
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("disk full: no space is left for %s (%v); what was saved before is untouched: free some space there "+
		"(or lower trainer.keep_checkpoints), then run the same command again to resume", e.Dir, e.Err)
}

func (e *DiskFullError) Unwrap() error { return e.Err }

// describeDiskFull turns a full disk into a DiskFullError and passes other errors on.
func describeDiskFull(err error, dir string) error {
	var known *DiskFullError
	if err == nil || errors.As(err, &known) || !isDiskFull(err) {
		return err
	}
	return &DiskFullError{Dir: dir, Err: err}
}

// WriteFile replaces a file as a whole and durably: the old content or the new one is there after a crash, never a part.
func WriteFile(path string, data []byte) error {
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceFile is WriteFile for content that fill writes. The temporary file lies beside the target, on the same file system.
func replaceFile(path string, fill func(io.Writer) error) (err error) {
	temporary, err := writeTemporary(path, fill)
	if err != nil {
		return err
	}
	return commitTemporary(temporary, path)
}

// writeTemporary writes and syncs the content for path under a temporary name and returns that name.
func writeTemporary(path string, fill func(io.Writer) error) (temporary string, err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, temporaryPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", path, describeDiskFull(err, dir))
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
			err = fmt.Errorf("write %s: %w", path, describeDiskFull(err, dir))
		}
	}()
	err = fill(file)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err == nil {
		err = file.Sync()
	}
	return file.Name(), errors.Join(err, file.Close())
}

// commitTemporary gives a written temporary file its name, durably.
func commitTemporary(temporary, path string) error {
	err := os.Rename(temporary, path)
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("write %s: %w", path, describeDiskFull(err, filepath.Dir(path)))
	}
	return nil
}
