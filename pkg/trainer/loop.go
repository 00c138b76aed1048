package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"meap/internal/durable"
	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/transformer"
)

// Names in a run's output folder beside checkpoints and metrics.
const (
	ConfigFile     = "config.yaml" // the resolved configuration
	tensorboardDir = "tensorboard"
	momentsFile    = "trainer.safetensors" // in a checkpoint: AdamW's moments
)

// Run is everything that a training run needs. Config must be valid.
type Run struct {
	Config Config
	Device graph.Device
	Model  transformer.Config
	// Initial gives the weights of a run that starts; a run that is resumed never calls it.
	Initial func() (*transformer.Weights, error)

	Source     Source
	Validation Validation // nil: none
	// Identity is what a resumed run is compared by: seed, fingerprints and configuration; the loop fills in the rest.
	Identity State
	// SaveTokenizer writes the tokenizer's files into a model folder, Tokens are the special ids that its config.json names.
	SaveTokenizer func(dir string) error
	Tokens        transformer.SpecialTokens
	// ResolvedConfig is saved in the output folder as config.yaml.
	ResolvedConfig []byte

	Output   string
	Resume   string // ResumeAuto, ResumeOff, or the folder of a checkpoint
	Reporter Reporter
}

// Validation is held-out text as unmasked rows.
type Validation interface {
	// Rows is the number of rows there are.
	Rows() int
	// Fill puts rows first .. first+rows-1 into b; rows beyond the last one carry no labels.
	Fill(first, rows int, b *dataset.Batch) error
	// BytesPerToken is the text's bytes for each labelled token, to turn nats per token into bits per byte; NaN where unknown.
	BytesPerToken() float64
}

// ErrInterrupted says that the run was stopped from outside and has saved a checkpoint first.
var ErrInterrupted = errors.New("interrupted")

// Train runs from where the output folder's run stands, or from the start, to Config.LastStep, with a checkpoint at the end. When
// ctx ends it finishes the step under way, writes a checkpoint and returns ErrInterrupted. A run that has nothing left to do is left
// as it is.
func (r *Run) Train(ctx context.Context) (err error) {
	lock, err := LockOutput(r.Output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	store := NewStore(r.Output, r.Config.KeepCheckpoints)
	if err := errors.Join(store.Recover(), removeTemporary(r.Output)); err != nil {
		return err
	}
	from, err := r.resumePoint(store)
	if err != nil {
		return err
	}
	finished, err := r.finished(from)
	if err != nil {
		return err
	}
	if finished {
		r.Reporter.Start(Span{Done: from.Step, Last: r.Config.LastStep()})
		r.Reporter.Note(fmt.Sprintf("the run in %s has already done %d of %d steps: nothing to do; raise trainer.steps or trainer.stop_after to go on",
			r.Output, from.Step, r.Config.LastStep()))
		return r.Reporter.Stop()
	}
	schedule, warning := r.Config.Schedule()
	l := &loop{Run: r, store: store, schedule: schedule}
	if warning != "" {
		r.Reporter.Note(warning)
	}
	defer l.close()
	if err := l.open(from); err != nil {
		return err
	}
	return l.run(ctx)
}

// loop is a run in progress.
type loop struct {
	*Run
	store    *Store
	schedule Schedule
	params   *transformer.Parameters
	stepper  *Stepper
	metrics  *MetricsWriter
	events   *EventWriter

	done  int64 // steps whose results have been reported
	saved int64 // the step of the newest checkpoint, -1 before the first
	owed  bool  // the validation after step done, which an interrupted run did not finish
	mark  time.Time
}

// open brings weights, moments and records to where the run goes on from.
func (l *loop) open(from *Checkpoint) error {
	l.saved = -1
	weights, err := l.weights(from)
	if err != nil {
		return err
	}
	if l.params, err = transformer.NewParameters(l.Device, weights); err != nil {
		return fmt.Errorf("put the model's weights on %s: %w", l.Device.Name(), err)
	}
	if l.stepper, err = NewStepper(l.Device, l.params, l.Config); err != nil {
		return err
	}
	if from != nil {
		l.done, l.saved = from.Step, from.Step
		if err := l.loadMoments(from.Dir); err != nil {
			return err
		}
		if err := l.goBack(from); err != nil {
			return err
		}
		if l.owed, err = l.validationMissing(l.done); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(filepath.Join(l.Output, ConfigFile), l.ResolvedConfig); err != nil {
		return fmt.Errorf("save the resolved configuration: %w", durable.DescribeDiskFull(err, l.Output))
	}
	if l.metrics, err = OpenMetrics(filepath.Join(l.Output, MetricsFile), l.done); err != nil {
		return err
	}
	l.events, err = OpenEvents(filepath.Join(l.Output, tensorboardDir), l.done)
	return err
}

func (l *loop) close() {
	if l.stepper != nil {
		l.stepper.Close()
	}
	if l.params != nil {
		l.params.Close()
	}
	// What these could still report has been reported by Sync before the last checkpoint.
	if l.metrics != nil {
		_ = l.metrics.Close()
	}
	if l.events != nil {
		_ = l.events.Close()
	}
}

func (l *loop) run(ctx context.Context) (err error) {
	last := l.Config.LastStep()
	l.Reporter.Start(Span{Done: l.done, Last: last})
	defer func() { err = errors.Join(err, l.Reporter.Stop()) }()
	l.mark = time.Now()
	if l.owed {
		if err := l.validate(ctx); err != nil {
			return err
		}
	}
	for step := l.done + 1; step <= last; step++ {
		if ctx.Err() != nil {
			return l.interrupted()
		}
		if err := l.stepper.Step(step, l.Source, l.schedule.LearningRate(step)); err != nil {
			return err
		}
		validate, checkpoint := due(step, l.Config.ValidateEvery, last), due(step, l.Config.CheckpointEvery, last)
		if err := l.report(validate || checkpoint); err != nil {
			return err
		}
		if validate {
			if err := l.validate(ctx); err != nil {
				return err
			}
		}
		if checkpoint {
			if err := l.checkpoint(); err != nil {
				return err
			}
		}
	}
	return nil
}

// due says whether something that happens every so many steps, and at the end, happens after this one.
func due(step, every, last int64) bool { return step == last || every > 0 && step%every == 0 }

// interrupted saves what is done.
func (l *loop) interrupted() error {
	if err := l.report(true); err != nil {
		return err
	}
	if l.saved != l.done && l.done > 0 {
		if err := l.checkpoint(); err != nil {
			return err
		}
	}
	how := "the same command"
	if l.Resume != "" && l.Resume != ResumeAuto {
		how = "the same command with --resume auto"
	}
	return fmt.Errorf("%w after step %d; %s continues from there", ErrInterrupted, l.done, how)
}

// report passes on the results that are there, or with flush those of all steps queued so far.
func (l *loop) report(flush bool) error {
	for {
		result, ok, err := l.stepper.Next(flush)
		if errors.As(err, new(*NonFiniteError)) {
			return fmt.Errorf("%w; %s", err, l.newest())
		}
		if err != nil || !ok {
			return err
		}
		now := time.Now()
		seconds := now.Sub(l.mark).Seconds()
		l.mark = now
		l.done = result.Step
		record := StepRecord{
			Step: result.Step, Loss: result.Loss, LearningRate: l.schedule.LearningRate(result.Step), GradNorm: result.GradNorm,
			TokensPerSecond: float64(l.Config.TokensPerStep()) / seconds, Tokens: result.Step * l.Config.TokensPerStep(), Seconds: seconds,
		}
		if err := errors.Join(l.metrics.Step(record), l.events.Step(record)); err != nil {
			return err
		}
		l.Reporter.Step(record)
	}
}

// validate measures the loss on held-out rows without masks, unless ctx ends before it is done. Time spent here is not part of any
// step.
func (l *loop) validate(ctx context.Context) error {
	if l.Validation == nil {
		return nil
	}
	defer func() { l.mark = time.Now() }()
	loss, err := Validate(ctx, l.stepper, l.Validation, l.Config)
	if ctx.Err() != nil {
		return l.interrupted()
	}
	if err != nil {
		return fmt.Errorf("validation after step %d: %w", l.done, err)
	}
	record := ValidationRecord{Step: l.done, Loss: loss, BitsPerByte: loss / math.Ln2 / l.Validation.BytesPerToken()}
	if err := errors.Join(l.metrics.Validation(record), l.events.Validation(record)); err != nil {
		return err
	}
	l.Reporter.Validation(record)
	return nil
}

// Validate returns the mean negative log-likelihood per labelled token, in nats, of the first trainer.validate_rows rows.
func Validate(ctx context.Context, s *Stepper, v Validation, cfg Config) (float64, error) {
	rows := v.Rows()
	if cfg.ValidateRows > 0 {
		rows = min(rows, cfg.ValidateRows)
	}
	var batch dataset.Batch
	var nll float64
	var labels int64
	for first := 0; first < rows; first += cfg.MicroBatch {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := v.Fill(first, cfg.MicroBatch, &batch); err != nil {
			return 0, err
		}
		for i := max(0, rows-first) * cfg.Seq; i < len(batch.Labels); i++ {
			batch.Labels[i] = graph.IgnoreLabel
		}
		sum, n, err := s.Evaluate(&batch)
		if err != nil {
			return 0, err
		}
		nll += sum
		labels += n
	}
	return nll / float64(labels), nil
}

// newest says which checkpoint there is.
func (l *loop) newest() string {
	if l.saved < 0 {
		return "there is no checkpoint yet"
	}
	return fmt.Sprintf("the newest checkpoint is that of step %d", l.saved)
}

// checkpoint saves the state after step l.done, which all queued steps have reached, with all records up to it.
func (l *loop) checkpoint() error {
	defer func() { l.mark = time.Now() }()
	if err := errors.Join(l.metrics.Sync(), l.events.Sync()); err != nil {
		return err
	}
	return l.save()
}

// save writes the checkpoint of step l.done.
func (l *loop) save() error {
	rows := int64(l.Config.RowsPerStep())
	state := l.Identity
	state.Step = l.done
	state.Position = l.done * rows
	state.Tokens = l.done * l.Config.TokensPerStep()
	if n := l.Identity.RowsPerEpoch; n > 0 {
		state.Epoch = state.Position / n
	}
	if p, ok := l.Source.(Positioner); ok {
		state.Epoch, state.Position = p.Position(l.done)
	}
	err := l.store.Write(l.done, func(dir string) error {
		weights, err := l.params.Download()
		if err != nil {
			return err
		}
		if err := transformer.Save(dir, weights, transformer.WithTokens(l.Tokens)); err != nil {
			return err
		}
		if err := l.SaveTokenizer(dir); err != nil {
			return err
		}
		moments, err := l.stepper.Moments()
		if err != nil {
			return err
		}
		if err := transformer.WriteTensors(filepath.Join(dir, momentsFile), moments, nil); err != nil {
			return err
		}
		return state.Write(dir)
	})
	if err != nil {
		return err
	}
	l.saved = l.done
	return nil
}

// ModelDir returns the model folder that a path means: the path itself where it is one, or the newest checkpoint of a run's
// output folder.
func ModelDir(path string) (string, error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return "", fmt.Errorf("find the model: %s is a file; name the folder that holds it, or a run's output folder", path)
	}
	dir, _, err := NewStore(path, 0).Latest()
	if errors.Is(err, ErrNoCheckpoint) {
		return path, nil
	}
	return dir, err
}
