package trainer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/graph/naive"
	"meap/pkg/transformer"
)

// listener is a Reporter that keeps what it is told.
type listener struct {
	span        Span
	losses      map[int64]float64 // by step, of all runs that reported here
	steps       []int64           // in the order of the reports
	validations map[int64]float64
	notes       []string
	onStep      func(step int64)
	stopped     int
}

func newListener() *listener {
	return &listener{losses: map[int64]float64{}, validations: map[int64]float64{}}
}

func (l *listener) Start(s Span) { l.span = s }

func (l *listener) Step(r StepRecord) {
	l.losses[r.Step] = r.Loss
	l.steps = append(l.steps, r.Step)
	if l.onStep != nil {
		l.onStep(r.Step)
	}
}

func (l *listener) Validation(r ValidationRecord) { l.validations[r.Step] = r.Loss }
func (l *listener) Note(text string)              { l.notes = append(l.notes, text) }
func (l *listener) Stop() error                   { l.stopped++; return nil }

func (l *listener) said(text string) bool {
	return slices.ContainsFunc(l.notes, func(n string) bool { return strings.Contains(n, text) })
}

// tinyRun is a run of tinyConfig in a folder; change may alter it before its identity is written down.
func tinyRun(t testing.TB, output string, change func(*Run)) (*Run, *listener) {
	t.Helper()
	heard := newListener()
	r := &Run{
		Config:         tinyConfig(),
		Device:         cpuDevice(t, 2),
		Model:          tinyModel,
		Source:         &words{seq: 12, vocab: tinyModel.Vocab, unlabelled: true},
		Validation:     &words{seq: 12, vocab: tinyModel.Vocab, rows: 5},
		SaveTokenizer:  func(dir string) error { return os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("{}"), 0o644) },
		ResolvedConfig: []byte("trainer:\n  steps: 12\n"),
		Output:         output,
		Resume:         ResumeAuto,
		Reporter:       heard,
	}
	if change != nil {
		change(r)
	}
	r.Initial = func() (*transformer.Weights, error) { return transformer.Init(r.Model, r.Config.Seed), nil }
	config := map[string]any{
		"model.layers": r.Model.Layers, "masking.ratio": 0.15, "trainer.seed": r.Config.Seed, "trainer.steps": r.Config.Steps,
		"trainer.stop_after": r.Config.StopAfter, "trainer.micro_batch": r.Config.MicroBatch, "trainer.accumulate": r.Config.Accumulate,
		"trainer.learning_rate": r.Config.LearningRate,
	}
	maps.Copy(config, r.Identity.Config)
	r.Identity.Seed, r.Identity.Config, r.Identity.RowsPerEpoch = r.Config.Seed, config, 7
	r.Identity.Tokenizer, r.Identity.Data = "bytes", "words"
	return r, heard
}

func train(t testing.TB, output string, change func(*Run)) *listener {
	t.Helper()
	r, heard := tinyRun(t, output, change)
	if err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	return heard
}

// straight is the run that others are compared with.
func straight(t testing.TB) (output string, heard *listener) {
	t.Helper()
	output = t.TempDir()
	heard = train(t, output, nil)
	if len(heard.steps) != 12 || heard.stopped != 1 {
		t.Fatalf("steps %v, stopped %d times", heard.steps, heard.stopped)
	}
	return output, heard
}

// expectSame checks losses, validations, metrics and the final checkpoint of a run against the straight one, to the last bit.
func expectSame(t *testing.T, output string, heard *listener, wantOutput string, want *listener) {
	t.Helper()
	if !maps.Equal(heard.losses, want.losses) {
		t.Errorf("losses %v, of the straight run %v", heard.losses, want.losses)
	}
	got, wanted := metrics(t, output), metrics(t, wantOutput)
	if !reflect.DeepEqual(got.Steps, wanted.Steps) || !reflect.DeepEqual(got.Validations, wanted.Validations) {
		t.Errorf("metrics are %+v, of the straight run %+v", got, wanted)
	}
	for _, name := range []string{"model.safetensors", momentsFile} {
		if !reflect.DeepEqual(tensors(t, output, name), tensors(t, wantOutput, name)) {
			t.Errorf("%s differs from the straight run's", name)
		}
	}
}

// metrics reads a run's records without what depends on the clock.
func metrics(t *testing.T, output string) Metrics {
	t.Helper()
	m, err := ReadMetrics(filepath.Join(output, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Steps {
		m.Steps[i].Seconds, m.Steps[i].TokensPerSecond = 0, 0
	}
	return m
}

// tensors reads a file of the newest checkpoint.
func tensors(t *testing.T, output, name string) map[string][]uint32 {
	t.Helper()
	dir, _, err := NewStore(output, 0).Latest()
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := transformer.ReadTensors(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return bits(list)
}

func latestStep(t *testing.T, output string) int64 {
	t.Helper()
	_, step, err := NewStore(output, 0).Latest()
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func checkpointSteps(t *testing.T, output string) (steps []int64) {
	t.Helper()
	all, err := NewStore(output, 0).List()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		steps = append(steps, c.Step)
	}
	return steps
}

// snapshot returns every file below a folder with its content, and its time of change.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockFile {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = fmt.Sprint(info.ModTime(), string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestFreshRun(t *testing.T) {
	output, heard := straight(t)
	if heard.span != (Span{Done: 0, Last: 12}) {
		t.Errorf("the span is %+v", heard.span)
	}
	if text, err := os.ReadFile(filepath.Join(output, ConfigFile)); err != nil || string(text) != "trainer:\n  steps: 12\n" {
		t.Errorf("config.yaml holds %q, %v", text, err)
	}
	if got := checkpointSteps(t, output); !slices.Equal(got, []int64{10, 12}) || latestStep(t, output) != 12 {
		t.Errorf("checkpoints %v, latest %d", got, latestStep(t, output))
	}
	m := metrics(t, output)
	rate, _ := tinyConfig().Schedule()
	for i, r := range m.Steps {
		step := int64(i + 1)
		if r.Step != step || r.Loss != heard.losses[step] || r.LearningRate != rate.LearningRate(step) || r.Tokens != step*48 || !(r.GradNorm > 0) {
			t.Errorf("record %d is %+v", i, r)
		}
	}
	var validated []int64
	for _, v := range m.Validations {
		validated = append(validated, v.Step)
		if v.Loss != heard.validations[v.Step] || v.BitsPerByte != v.Loss/math.Ln2/4 {
			t.Errorf("validation %+v", v)
		}
	}
	if len(m.Steps) != 12 || !slices.Equal(validated, []int64{4, 8, 12}) {
		t.Errorf("%d steps, validations after %v", len(m.Steps), validated)
	}
	if m.Steps[11].Loss > m.Steps[0].Loss-0.3 {
		t.Errorf("nothing was learnt: the loss went from %v to %v", m.Steps[0].Loss, m.Steps[11].Loss)
	}
	scalars := map[string]int{}
	for _, file := range readEventFiles(t, filepath.Join(output, tensorboardDir)) {
		for _, e := range decode(t, file) {
			for name := range e.scalars {
				scalars[name]++
			}
		}
	}
	if scalars["loss"] != 12 || scalars["val_loss"] != 3 {
		t.Errorf("TensorBoard holds %v", scalars)
	}

	dir, _, err := NewStore(output, 0).Latest()
	if err != nil {
		t.Fatal(err)
	}
	w, err := transformer.Load(dir)
	if err != nil || w.Config != tinyModel {
		t.Errorf("the checkpoint is no model folder of the model: %v", err)
	}
	state, err := ReadState(dir)
	if err != nil || state.Step != 12 || state.Position != 48 || state.Epoch != 6 || state.Tokens != 576 || state.Seed != tinyConfig().Seed {
		t.Errorf("the state is %+v, %v", state, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Error(err)
	}
	if got, err := ModelDir(output); err != nil || got != dir {
		t.Errorf("ModelDir: %s, %v", got, err)
	}
}

// A run that is stopped and continued is the run that was not: losses, records, weights, moments. So it is on one thread instead of
// two, with recomputation, and where the stop falls between checkpoints.
func TestStopAndResume(t *testing.T) {
	wantOutput, want := straight(t)
	for _, stop := range []int64{1, 7, 10} {
		t.Run(fmt.Sprint("stop after ", stop), func(t *testing.T) {
			output := t.TempDir()
			first, heard := tinyRun(t, output, func(r *Run) { r.Config.StopAfter = stop })
			if err := first.Train(context.Background()); err != nil {
				t.Fatal(err)
			}
			if latestStep(t, output) != stop || int64(len(heard.steps)) != stop {
				t.Fatalf("stopped after steps %v with a checkpoint of step %d", heard.steps, latestStep(t, output))
			}
			second, _ := tinyRun(t, output, func(r *Run) {
				r.Reporter = heard
				r.Device = cpuDevice(t, 1)
				r.Config.Recompute = RecomputeBlocks
			})
			second.Initial = func() (*transformer.Weights, error) {
				return nil, errors.New("a resumed run asks for initial weights")
			}
			if err := second.Train(context.Background()); err != nil {
				t.Fatal(err)
			}
			if heard.span != (Span{Done: stop, Last: 12}) || !heard.said(fmt.Sprintf("(step %d)", stop)) {
				t.Errorf("span %+v, notes %q", heard.span, heard.notes)
			}
			if !slices.IsSorted(heard.steps) || len(heard.steps) != 12 {
				t.Errorf("steps %v", heard.steps)
			}
			// The end of the first part is validated too, which the straight run has no reason to do.
			dropValidation(t, output, stop)
			expectSame(t, output, heard, wantOutput, want)
		})
	}
}

// dropValidation removes the record of a validation after a step that is not due by trainer.validate_every.
func dropValidation(t *testing.T, output string, step int64) {
	t.Helper()
	if step%tinyConfig().ValidateEvery == 0 {
		return
	}
	path := filepath.Join(output, MetricsFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	kept := slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		return strings.HasPrefix(l, fmt.Sprintf(`{"step":%d,"val_loss"`, step))
	})
	if len(kept) != len(lines)-1 {
		t.Fatalf("no single validation after step %d in %s", step, text)
	}
	if err := os.WriteFile(path, []byte(strings.Join(kept, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptAndResume(t *testing.T) {
	wantOutput, want := straight(t)
	for name, device := range map[string]func(*Run) graph.Device{
		"cpu":          func(r *Run) graph.Device { return r.Device },
		"asynchronous": func(r *Run) graph.Device { return &late{Device: r.Device} },
	} {
		t.Run(name, func(t *testing.T) {
			output := t.TempDir()
			ctx, cancel := context.WithCancel(context.Background())
			first, heard := tinyRun(t, output, func(r *Run) {
				// The results of steps 6 and 7 are then still under way on a device that is asynchronous.
				r.Source.(*words).before = func(step int64, _ *dataset.Batch) error {
					if step == 7 {
						cancel()
					}
					return nil
				}
			})
			first.Device = device(first)
			err := first.Train(ctx)
			if !errors.Is(err, ErrInterrupted) || !strings.Contains(err.Error(), "after step 7") {
				t.Fatalf("interrupted: %v", err)
			}
			if len(heard.steps) != 7 || latestStep(t, output) != 7 {
				t.Fatalf("steps %v, checkpoint of step %d", heard.steps, latestStep(t, output))
			}
			second, _ := tinyRun(t, output, func(r *Run) { r.Reporter = heard })
			second.Device = device(second)
			if err := second.Train(context.Background()); err != nil {
				t.Fatal(err)
			}
			if len(heard.steps) != 12 || !slices.IsSorted(heard.steps) {
				t.Errorf("steps %v", heard.steps)
			}
			expectSame(t, output, heard, wantOutput, want)
		})
	}
}

// interruptingRows is a Validation during which the run is interrupted.
type interruptingRows struct {
	*words
	cancel func()
}

func (v interruptingRows) Fill(first, rows int, b *dataset.Batch) error {
	if first > 0 {
		v.cancel()
	}
	return v.words.Fill(first, rows, b)
}

// A validation that was interrupted is made up for when the run goes on, also where it is the last thing that the run does.
func TestInterruptDuringValidation(t *testing.T) {
	wantOutput, want := straight(t)
	for _, at := range []int64{4, 12} {
		output := t.TempDir()
		first, heard := tinyRun(t, output, nil)
		ctx, cancel := context.WithCancel(context.Background())
		rows := first.Validation.(*words)
		heard.onStep = func(step int64) {
			if step == at {
				first.Validation = interruptingRows{rows, cancel}
			}
		}
		if err := first.Train(ctx); !errors.Is(err, ErrInterrupted) {
			t.Fatalf("interrupted: %v", err)
		}
		if latestStep(t, output) != at || len(metrics(t, output).Validations) != int(at/4-1) {
			t.Fatalf("checkpoint of step %d, validations %v", latestStep(t, output), metrics(t, output).Validations)
		}
		heard.onStep = nil
		train(t, output, func(r *Run) { r.Reporter = heard })
		expectSame(t, output, heard, wantOutput, want)
	}
}

func TestResumeOff(t *testing.T) {
	output := t.TempDir()
	train(t, output, func(r *Run) { r.Resume, r.Config.StopAfter = ResumeOff, 2 })
	before := snapshot(t, output)
	r, _ := tinyRun(t, output, func(r *Run) { r.Resume = ResumeOff })
	err := r.Train(context.Background())
	var holds *HoldsRunError
	if !errors.As(err, &holds) || holds.Output != output {
		t.Errorf("--resume off on a run: %v", err)
	}
	if !errors.As(CheckResume(output, ResumeOff), &holds) || CheckResume(output, ResumeAuto) != nil || CheckResume(t.TempDir(), ResumeOff) != nil {
		t.Error("CheckResume is of another opinion")
	}
	if !maps.Equal(snapshot(t, output), before) {
		t.Error("a refused run changed the folder")
	}
}

// Going back to an older checkpoint leaves one course: latest, records and checkpoints agree from the first moment, so that a crash
// right after it does not make the run go on from a step that its records do not reach.
func TestResumeOlderCheckpoint(t *testing.T) {
	wantOutput, want := straight(t)
	output := t.TempDir()
	train(t, output, func(r *Run) { r.Config.KeepCheckpoints = 0 })
	if got := checkpointSteps(t, output); !slices.Equal(got, []int64{5, 10, 12}) {
		t.Fatalf("checkpoints %v", got)
	}
	older := filepath.Join(output, checkpointsDir, stepName(5))

	crash := errors.New("crash")
	r, heard := tinyRun(t, output, func(r *Run) {
		r.Resume, r.Config.KeepCheckpoints = older, 0
		r.Source.(*words).before = func(step int64, _ *dataset.Batch) error {
			if step == 8 {
				return crash
			}
			return nil
		}
	})
	if err := r.Train(context.Background()); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	if !heard.said("going back to step 5") {
		t.Errorf("notes %q", heard.notes)
	}
	if got := checkpointSteps(t, output); latestStep(t, output) != 5 || !slices.Equal(got, []int64{5}) {
		t.Errorf("after the crash: checkpoints %v, latest %d", got, latestStep(t, output))
	}
	if m := metrics(t, output); len(m.Steps) != 7 || len(m.Validations) != 1 {
		t.Errorf("after the crash: %d steps and %d validations are recorded", len(m.Steps), len(m.Validations))
	}

	train(t, output, func(r *Run) { r.Reporter, r.Config.KeepCheckpoints = heard, 0 })
	if heard.span.Done != 5 {
		t.Errorf("goes on from step %d", heard.span.Done)
	}
	for step := int64(1); step <= 5; step++ { // these were not run again
		heard.losses[step] = want.losses[step]
	}
	expectSame(t, output, heard, wantOutput, want)
}

// A checkpoint of another folder begins a run of its own, which a crash must not send back to the start.
func TestResumeCheckpointOfAnotherFolder(t *testing.T) {
	wantOutput, want := straight(t)
	output := t.TempDir()
	crash := errors.New("crash")
	r, _ := tinyRun(t, output, func(r *Run) {
		r.Resume = filepath.Join(wantOutput, checkpointsDir, stepName(10))
		r.Source.(*words).before = func(int64, *dataset.Batch) error { return crash }
	})
	if err := r.Train(context.Background()); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	heard := train(t, output, nil)
	if heard.span.Done != 10 || heard.losses[12] != want.losses[12] || latestStep(t, output) != 12 {
		t.Errorf("span %+v, losses %v, latest %d", heard.span, heard.losses, latestStep(t, output))
	}
	if !reflect.DeepEqual(tensors(t, output, "model.safetensors"), tensors(t, wantOutput, "model.safetensors")) {
		t.Error("other weights")
	}

	// Where a run is already, another run's checkpoint would cost it its own.
	before := snapshot(t, output)
	r, _ = tinyRun(t, output, func(r *Run) { r.Resume = filepath.Join(wantOutput, checkpointsDir, stepName(10)) })
	if err := r.Train(context.Background()); !errors.As(err, new(*HoldsRunError)) || !reflect.DeepEqual(snapshot(t, output), before) {
		t.Errorf("a checkpoint of another run in the folder of a run: %v", err)
	}

	r, _ = tinyRun(t, output, func(r *Run) { r.Resume = filepath.Join(output, "nothing") })
	if err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "is not the folder of a checkpoint") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestResumeRefusesAnotherRun(t *testing.T) {
	output := t.TempDir()
	train(t, output, func(r *Run) { r.Config.StopAfter = 2 })
	before := snapshot(t, output)
	for key, change := range map[string]func(*Run){
		"model.layers":        func(r *Run) { r.Model.Layers = 3 },
		"trainer.seed":        func(r *Run) { r.Config.Seed++ },
		"masking.ratio":       func(r *Run) { r.Identity.Config = map[string]any{"masking.ratio": 0.2} },
		"trainer.micro_batch": func(r *Run) { r.Config.MicroBatch = 4 },
	} {
		r, heard := tinyRun(t, output, change)
		err := r.Train(context.Background())
		var refused *ResumeError
		if !errors.As(err, &refused) || len(refused.Problems) != 1 || !strings.HasPrefix(refused.Problems[0], key+" = ") {
			t.Errorf("%s: %v", key, err)
		}
		if len(heard.steps) != 0 {
			t.Errorf("%s: steps were taken", key)
		}
	}
	// What the configuration's keys do not show, the weights do.
	r, _ := tinyRun(t, output, func(r *Run) { r.Model.TieEmbeddings = true })
	if err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "model.*") {
		t.Errorf("another model under the same keys: %v", err)
	}
	if !maps.Equal(snapshot(t, output), before) {
		t.Error("a refused run changed the folder")
	}
}

// A learning rate may be changed on purpose; that is said.
func TestResumeNotesAChangedCourse(t *testing.T) {
	output := t.TempDir()
	train(t, output, func(r *Run) { r.Config.StopAfter = 2 })
	heard := train(t, output, func(r *Run) { r.Config.StopAfter, r.Config.LearningRate = 3, 5e-3 })
	if !heard.said("trainer.learning_rate = 0.005, was 0.01") {
		t.Errorf("notes %q", heard.notes)
	}
}

func TestOneRunPerFolder(t *testing.T) {
	output := t.TempDir()
	r, heard := tinyRun(t, output, nil)
	var second error
	heard.onStep = func(step int64) {
		if step == 3 {
			other, _ := tinyRun(t, output, nil)
			second = other.Train(context.Background())
		}
	}
	if err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if !errors.As(second, &locked) || locked.PID != os.Getpid() {
		t.Errorf("a second run: %v", second)
	}
	if len(heard.losses) != 12 {
		t.Errorf("the first run was disturbed: %v", heard.losses)
	}
}

func TestFinishedRun(t *testing.T) {
	output, _ := straight(t)
	before := snapshot(t, output)
	for _, stop := range []int64{0, 6} {
		heard := train(t, output, func(r *Run) { r.Config.StopAfter = stop })
		if !heard.said("nothing to do") || len(heard.steps) != 0 || heard.stopped != 1 {
			t.Errorf("stop_after %d: notes %q, steps %v", stop, heard.notes, heard.steps)
		}
		if !maps.Equal(snapshot(t, output), before) {
			t.Errorf("stop_after %d: a finished run was changed", stop)
		}
	}
}

// Each row of the validation counts by its labels, whatever micro-batch it falls into, and rows beyond the last do not count.
func TestValidationByHand(t *testing.T) {
	weights := transformer.Init(tinyModel, 5)
	v := &words{seq: 12, vocab: tinyModel.Vocab, rows: 5} // rows of 1, 2, 3, 4, 5 labels
	perRow := func() (nll []float64) {
		cfg := tinyConfig()
		cfg.MicroBatch = 1
		b := newBench(t, naive.Device[float32]{}, tinyModel, cfg)
		if err := b.params.Upload(weights); err != nil {
			t.Fatal(err)
		}
		var batch dataset.Batch
		for row := range v.rows {
			if err := v.Fill(row, 1, &batch); err != nil {
				t.Fatal(err)
			}
			sum, n, err := b.Evaluate(&batch)
			if err != nil || n != int64(row+1) {
				t.Fatal(n, err)
			}
			nll = append(nll, sum)
		}
		return nll
	}()
	mean := func(rows int) float64 {
		sum, labels := 0.0, 0
		for row := range rows {
			sum, labels = sum+perRow[row], labels+row+1
		}
		return sum / float64(labels)
	}
	for _, c := range []struct{ micro, limit, rows int }{{2, 0, 5}, {3, 0, 5}, {8, 0, 5}, {5, 0, 5}, {1, 0, 5}, {2, 3, 3}, {4, 3, 3}, {2, 99, 5}} {
		cfg := tinyConfig()
		cfg.MicroBatch, cfg.ValidateRows = c.micro, c.limit
		b := newBench(t, cpuDevice(t, 1), tinyModel, cfg)
		if err := b.params.Upload(weights); err != nil {
			t.Fatal(err)
		}
		got, err := Validate(context.Background(), b.Stepper, v, cfg)
		if want := mean(c.rows); err != nil || math.Abs(got-want) > 1e-5 {
			t.Errorf("micro-batches of %d, at most %d rows: %v, %v; by hand %v", c.micro, c.limit, got, err, want)
		}
	}
}

func TestValidationDoesNotTouchTheTraining(t *testing.T) {
	_, want := straight(t)
	for name, change := range map[string]func(*Run){
		"none":       func(r *Run) { r.Validation = nil },
		"every step": func(r *Run) { r.Config.ValidateEvery = 1 },
		"at the end": func(r *Run) { r.Config.ValidateEvery = 0 },
	} {
		heard := train(t, t.TempDir(), change)
		if !maps.Equal(heard.losses, want.losses) {
			t.Errorf("validation %s: losses %v, else %v", name, heard.losses, want.losses)
		}
		if wantCount := map[string]int{"none": 0, "every step": 12, "at the end": 1}[name]; len(heard.validations) != wantCount {
			t.Errorf("validation %s: %v", name, heard.validations)
		}
	}
}

func TestCheckpointsAreRotated(t *testing.T) {
	for keep, want := range map[int][]int64{0: {3, 6, 9, 12}, 1: {12}, 3: {6, 9, 12}} {
		output := t.TempDir()
		train(t, output, func(r *Run) { r.Config.CheckpointEvery, r.Config.KeepCheckpoints = 3, keep })
		if got := checkpointSteps(t, output); !slices.Equal(got, want) {
			t.Errorf("keep %d: %v, want %v", keep, got, want)
		}
	}
	output := t.TempDir()
	train(t, output, func(r *Run) { r.Config.CheckpointEvery = 0 })
	if got := checkpointSteps(t, output); !slices.Equal(got, []int64{12}) {
		t.Errorf("checkpoint_every 0: %v", got)
	}
}

// A step that is not finite ends the run before anything is spoilt, and the run goes on from its last checkpoint once the cause is
// gone.
func TestNonFiniteRun(t *testing.T) {
	wantOutput, want := straight(t)
	for _, c := range []struct {
		at     int64
		newest string
	}{{8, "the newest checkpoint is that of step 5"}, {3, "there is no checkpoint yet"}} {
		for name, queued := range map[string]bool{"cpu": false, "asynchronous": true} {
			output := t.TempDir()
			r, heard := tinyRun(t, output, nil)
			dev := newSpy(r.Device)
			r.Device = dev
			spoil := func() { dev.spoil(t, "grad.model.norm.weight", float32(math.NaN())) }
			if queued {
				slow := &late{Device: dev}
				r.Device = slow
				spoil = func() {
					slow.push(func() error { dev.spoil(t, "grad.model.norm.weight", float32(math.NaN())); return nil })
				}
			}
			r.Source.(*words).before = func(step int64, _ *dataset.Batch) error {
				if step == c.at {
					spoil()
				}
				return nil
			}
			err := r.Train(context.Background())
			var bad *NonFiniteError
			if !errors.As(err, &bad) || bad.Step != c.at || bad.Tensor != "model.norm.weight" || !strings.Contains(err.Error(), c.newest) {
				t.Fatalf("%s: %v", name, err)
			}
			if got := int64(len(metrics(t, output).Steps)); got != c.at-1 || heard.stopped != 1 {
				t.Errorf("%s: %d steps are recorded", name, got)
			}
			if c.at > 5 && latestStep(t, output) != 5 {
				t.Errorf("%s: latest is step %d", name, latestStep(t, output))
			}
			heard.losses = map[int64]float64{}
			train(t, output, func(r *Run) { r.Reporter = heard })
			for step := int64(1); step <= 5; step++ {
				heard.losses[step] = want.losses[step]
			}
			expectSame(t, output, heard, wantOutput, want)
		}
	}
}

// Whatever a crash leaves behind the last checkpoint is run again, whatever the records say.
func TestResumeAfterACrash(t *testing.T) {
	wantOutput, want := straight(t)
	for _, at := range []int64{1, 4, 5, 6, 10, 11, 12} {
		output := t.TempDir()
		crash := errors.New("crash")
		r, heard := tinyRun(t, output, func(r *Run) {
			r.Source.(*words).before = func(step int64, _ *dataset.Batch) error {
				if step == at {
					return crash
				}
				return nil
			}
		})
		if err := r.Train(context.Background()); !errors.Is(err, crash) {
			t.Fatal(err)
		}
		// A torn record, as a kill in the middle of a write leaves it.
		f, err := os.OpenFile(filepath.Join(output, MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"step":` + fmt.Sprint(at) + `,"loss":1.2`); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		train(t, output, func(r *Run) { r.Reporter = heard })
		if from := (at - 1) / 5 * 5; heard.span.Done != from {
			t.Errorf("crash in step %d: goes on from %d, want %d", at, heard.span.Done, from)
		}
		expectSame(t, output, heard, wantOutput, want)
	}
}

// What a kill left in the middle of replacing a file is removed, and nothing that is not ours.
func TestRunRemovesTemporaryFiles(t *testing.T) {
	output := t.TempDir()
	ours := []string{".tmp-metrics.jsonl-123", ".tmp-config.yaml-4"}
	for _, name := range append(ours, ".tmp-notes") {
		if err := os.WriteFile(filepath.Join(output, name), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	train(t, output, func(r *Run) { r.Config.StopAfter = 1 })
	for _, name := range ours {
		if _, err := os.Stat(filepath.Join(output, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(output, ".tmp-notes")); err != nil {
		t.Error(err)
	}
}

// A warm-up that is not shorter than the run is cut, with a warning.
func TestWarmupIsCut(t *testing.T) {
	heard := train(t, t.TempDir(), func(r *Run) { r.Config.Warmup = 12 })
	if !heard.said("trainer.warmup = 12") {
		t.Errorf("notes %q", heard.notes)
	}
}
