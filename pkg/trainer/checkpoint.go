package trainer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"meap/internal/durable"
)

// Names in a run's output folder.
const (
	checkpointsDir = "checkpoints"
	latestFile     = "latest"     // in checkpoints/: one line, the name of the folder to resume from
	replacedPrefix = ".replaced-" // the old one of two folders of the same step; put back by Recover where the new one is missing
)

var stepPattern = regexp.MustCompile(`^step-([0-9]{8,18})$`)

// ErrNoCheckpoint says that a run's output folder holds no complete checkpoint.
var ErrNoCheckpoint = errors.New("no checkpoint")

// Store keeps the checkpoints of one run:
//
//	OUTPUT/checkpoints/step-00000010/   a model folder with the training state
//	OUTPUT/checkpoints/latest           "step-00000010"
//
// A folder has its final name only when it is complete and durable, and is named by latest only after that, so whatever happens
// in the middle of a write, the checkpoint before is still there and still named.
type Store struct {
	dir  string
	keep int
}

// NewStore returns the store of the run in an output folder; nothing is created before the first Write. keep is the number of newest
// checkpoints that Write leaves (0: all).
func NewStore(output string, keep int) *Store {
	return &Store{dir: filepath.Join(output, checkpointsDir), keep: keep}
}

// Checkpoint is one complete checkpoint.
type Checkpoint struct {
	Dir  string
	Step int64 // optimiser steps done
}

// Write makes a checkpoint of a step. fill writes the files into the folder it is given, which has a temporary name; files need not
// be synced there. Where fill or the disk fails, the temporary folder is removed, everything that was there before is untouched, and a full disk is
// a *durable.DiskFullError. Checkpoints beyond the newest `keep` are removed once the new one is durable, and so are those of later
// steps: they belong to a course that the run has left by resuming from an earlier step.
func (s *Store) Write(step int64, fill func(dir string) error) (err error) {
	name := stepName(step)
	defer func() {
		if err != nil {
			err = fmt.Errorf("write checkpoint %s: %w", filepath.Join(s.dir, name), durable.DescribeDiskFull(err, s.dir))
		}
	}()
	if step < 0 {
		return fmt.Errorf("step %d is negative", step)
	}
	if err := durable.MakeDir(s.dir); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(s.dir, durable.TemporaryPrefix+name+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary) // gone by its other name when all went well
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := fill(temporary); err != nil {
		return err
	}
	if err := durable.SyncTree(temporary); err != nil {
		return err
	}
	// The text of `latest` is on the disk before the folder gets its name: after this point nothing needs space any more.
	latest, err := durable.WriteTemporary(filepath.Join(s.dir, latestFile), func(w io.Writer) error {
		_, err := io.WriteString(w, name+"\n")
		return err
	})
	if err != nil {
		return err
	}
	if err := s.install(temporary, name); err != nil {
		os.Remove(latest)
		return err
	}
	if err := durable.Commit(latest, filepath.Join(s.dir, latestFile)); err != nil {
		return err
	}
	return s.rotate(step)
}

// install gives a finished folder its name. A folder of that name is there when a crash came before `latest` was written, or
// when the run was taken back to an earlier step; it is set aside first, because a folder cannot be renamed over another.
func (s *Store) install(temporary, name string) error {
	final := filepath.Join(s.dir, name)
	replaced := filepath.Join(s.dir, replacedPrefix+name)
	if err := os.RemoveAll(replaced); err != nil {
		return err
	}
	hadOld := true
	if err := os.Rename(final, replaced); errors.Is(err, fs.ErrNotExist) {
		hadOld = false
	} else if err != nil {
		return err
	}
	if err := os.Rename(temporary, final); err != nil {
		if hadOld {
			err = errors.Join(err, os.Rename(replaced, final))
		}
		return err
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return err
	}
	return os.RemoveAll(replaced)
}

// rotate removes what is not to be kept after the checkpoint of a step was written.
func (s *Store) rotate(step int64) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	kept := 0
	for _, c := range slices.Backward(all) {
		if c.Step <= step {
			kept++
			if s.keep == 0 || kept <= s.keep {
				continue
			}
		}
		if err := s.remove(filepath.Base(c.Dir)); err != nil {
			return fmt.Errorf("remove an older checkpoint: %w", err)
		}
	}
	return nil
}

// remove deletes a checkpoint. It is renamed first, so that a crash in the middle does not leave half of one under a good name.
func (s *Store) remove(name string) error {
	doomed := filepath.Join(s.dir, durable.TemporaryPrefix+"removed-"+name)
	if err := os.RemoveAll(doomed); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(s.dir, name), doomed); err != nil {
		return err
	}
	return os.RemoveAll(doomed)
}

// Recover cleans up what a crash left: temporary files and folders are removed, a checkpoint that was set aside for a new one which
// never came is put back. Call it once at the start of a run, under the lock on the output folder.
func (s *Store) Recover() error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up checkpoints: %w; mend it, or choose another --output", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if name, ok := strings.CutPrefix(e.Name(), replacedPrefix); ok {
			if final := filepath.Join(s.dir, name); isDir(final) {
				err = os.RemoveAll(path)
			} else {
				err = os.Rename(path, final)
			}
		} else if strings.HasPrefix(e.Name(), durable.TemporaryPrefix) {
			err = os.RemoveAll(path)
		}
		if err != nil {
			return fmt.Errorf("clean up checkpoints: %w", err)
		}
	}
	return nil
}

// List returns the complete checkpoints, oldest step first.
func (s *Store) List() ([]Checkpoint, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var all []Checkpoint
	for _, e := range entries {
		if step, ok := stepOf(e.Name()); ok && isDir(filepath.Join(s.dir, e.Name())) {
			all = append(all, Checkpoint{Dir: filepath.Join(s.dir, e.Name()), Step: step})
		}
	}
	slices.SortFunc(all, func(a, b Checkpoint) int { return int(min(max(a.Step-b.Step, -1), 1)) })
	return all, nil
}

// Latest returns the checkpoint to resume from: the one that `latest` names, and where that file is missing or names a folder that
// is not there, the one of the highest step. It is ErrNoCheckpoint that says there never was one; where `latest` says that there was,
// a run that started anew would write over its records, so that is another error.
func (s *Store) Latest() (dir string, step int64, err error) {
	text, err := os.ReadFile(filepath.Join(s.dir, latestFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", 0, fmt.Errorf("find the latest checkpoint: %w; mend it, or choose another --output", err)
	}
	name := strings.TrimSpace(string(text))
	if step, ok := stepOf(name); ok && isDir(filepath.Join(s.dir, name)) {
		return filepath.Join(s.dir, name), step, nil
	}
	all, err := s.List()
	if err != nil {
		return "", 0, err
	}
	if len(all) == 0 && name != "" {
		return "", 0, fmt.Errorf("%s names %s, which is not there, and there is no other checkpoint: put it back, or choose another --output",
			filepath.Join(s.dir, latestFile), name)
	}
	if len(all) == 0 {
		return "", 0, fmt.Errorf("%w in %s", ErrNoCheckpoint, s.dir)
	}
	newest := all[len(all)-1]
	return newest.Dir, newest.Step, nil
}

// HoldsRun says whether an output folder holds a run, one with metrics or a checkpoint; --resume off refuses such a folder.
func HoldsRun(output string) (bool, error) {
	info, err := os.Stat(filepath.Join(output, MetricsFile))
	if err == nil && info.Size() > 0 {
		return true, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for a run in %s: %w", output, err)
	}
	all, err := NewStore(output, 0).List()
	return len(all) > 0, err
}

func stepName(step int64) string { return fmt.Sprintf("step-%08d", step) }

func stepOf(name string) (int64, bool) {
	match := stepPattern.FindStringSubmatch(name)
	if match == nil {
		return 0, false
	}
	step, err := strconv.ParseInt(match[1], 10, 64)
	return step, err == nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
