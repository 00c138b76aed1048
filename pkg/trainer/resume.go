package trainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meap/internal/durable"
	"meap/pkg/transformer"
)

// Values of Run.Resume that are not folders.
const (
	ResumeAuto = "auto" // continue the run in the output folder, start anew where there is none
	ResumeOff  = "off"  // start anew; refuse an output folder that holds a run
)

// HoldsRunError refuses a run in a folder that holds another one.
type HoldsRunError struct{ Output string }

func (e *HoldsRunError) Error() string {
	return fmt.Sprintf("output folder %s already holds a run: continue it with --resume auto, or choose another --output", e.Output)
}

// CheckResume refuses to start anew (ResumeOff), or from another run's checkpoint, in an output folder that holds a run: its later
// checkpoints and records would be removed. Train does so too; a command may want to know before it prepares data.
func CheckResume(output, resume string) error {
	switch resume {
	case ResumeAuto, "":
		return nil
	case ResumeOff:
	default:
		if _, err := os.Stat(filepath.Join(resume, StateFile)); err != nil {
			return fmt.Errorf("--resume %s is not the folder of a checkpoint (auto, off, or a folder such as OUTPUT/checkpoints/step-00000100): %w", resume, err)
		}
		if sameFile(filepath.Dir(filepath.Clean(resume)), filepath.Join(output, checkpointsDir)) {
			return nil
		}
	}
	holds, err := HoldsRun(output)
	if err == nil && holds {
		err = &HoldsRunError{Output: output}
	}
	return err
}

// removeTemporary removes what a run that was killed while it replaced a file has left beside it.
func removeTemporary(output string) error {
	entries, err := os.ReadDir(output)
	if err != nil {
		return fmt.Errorf("clean up the output folder: %w", err)
	}
	for _, e := range entries {
		for _, name := range []string{MetricsFile, ConfigFile} {
			if strings.HasPrefix(e.Name(), durable.TemporaryPrefix+name+"-") {
				if err := os.Remove(filepath.Join(output, e.Name())); err != nil {
					return fmt.Errorf("clean up the output folder: %w", err)
				}
			}
		}
	}
	return nil
}

// resumePoint finds the checkpoint to go on from, nil for a fresh start, and refuses one of another run's configuration.
func (r *Run) resumePoint(store *Store) (*Checkpoint, error) {
	if err := CheckResume(r.Output, r.Resume); err != nil {
		return nil, err
	}
	var from Checkpoint
	switch r.Resume {
	case ResumeOff:
		return nil, nil
	case ResumeAuto, "":
		dir, step, err := store.Latest()
		if errors.Is(err, ErrNoCheckpoint) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		from = Checkpoint{Dir: dir, Step: step}
	default:
		from.Dir = r.Resume
	}
	state, err := ReadState(from.Dir)
	if err != nil {
		return nil, err
	}
	from.Step = state.Step
	notes, err := state.Compatible(r.Identity)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", from.Dir, err)
	}
	for _, n := range notes {
		r.Reporter.Note(n)
	}
	r.Reporter.Note(fmt.Sprintf("resuming from %s (step %d)", from.Dir, from.Step))
	return &from, nil
}

// finished says whether a run that stands at a checkpoint has nothing left to do: neither a step, nor the validation after the last.
func (r *Run) finished(from *Checkpoint) (bool, error) {
	if from == nil || from.Step < r.Config.LastStep() {
		return false, nil
	}
	missing, err := r.validationMissing(from.Step)
	return !missing, err
}

// validationMissing says whether the run's records lack a validation that was due after a step. That is so where the run was
// interrupted during it.
func (r *Run) validationMissing(step int64) (bool, error) {
	if r.Validation == nil || !due(step, r.Config.ValidateEvery, r.Config.LastStep()) {
		return false, nil
	}
	m, err := ReadMetrics(filepath.Join(r.Output, MetricsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // nothing was recorded here
	}
	return !slices.ContainsFunc(m.Validations, func(v ValidationRecord) bool { return v.Step == step }), err
}

// weights returns those of the checkpoint, or the run's initial ones.
func (l *loop) weights(from *Checkpoint) (*transformer.Weights, error) {
	if from == nil {
		return l.Initial()
	}
	w, err := transformer.Load(from.Dir)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, otherCheckpoint)
	}
	if w.Config != l.Model {
		return nil, fmt.Errorf("checkpoint %s holds another model than the configuration asks for (%+v, not %+v): change model.* back, or start anew in another --output",
			from.Dir, w.Config, l.Model)
	}
	return w, nil
}

func (l *loop) loadMoments(dir string) error {
	path := filepath.Join(dir, momentsFile)
	tensors, _, err := transformer.ReadTensors(path)
	if err == nil {
		err = l.stepper.SetMoments(tensors)
	}
	if err != nil {
		return fmt.Errorf("read the optimiser's state %s: %w; %s", path, err, otherCheckpoint)
	}
	return nil
}

// goBack makes a checkpoint that was named by hand the one that the next resume takes: the records of later steps are about to be
// cut, and until the next checkpoint a crash would otherwise send the run on from a step that they do not reach, or to the start.
func (l *loop) goBack(from *Checkpoint) error {
	all, err := l.store.List()
	if err != nil {
		return err
	}
	if latest, _, err := l.store.Latest(); err == nil && sameFile(latest, from.Dir) {
		return nil
	}
	if n := len(all); n > 0 && all[n-1].Step > from.Step {
		l.Reporter.Note(fmt.Sprintf("going back to step %d: the checkpoints and records of later steps in %s are removed", from.Step, l.Output))
	}
	return l.save()
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}
