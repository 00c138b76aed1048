package trainer

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func record(step int64) StepRecord {
	x := 1 / float64(step+2)
	return StepRecord{Step: step, Loss: 5 + x, LearningRate: x * 1e-4, GradNorm: x, TokensPerSecond: 1e5 * x, Tokens: 100 * step, Seconds: x}
}

func TestRecordsAsJSON(t *testing.T) {
	third := 1.0 / 3
	got := string(StepRecord{Step: 7, Loss: 0.30000000000000004, LearningRate: 4e-4, GradNorm: 1e-9, TokensPerSecond: 1e21, Tokens: 9, Seconds: third}.AppendJSON(nil))
	want := `{"step":7,"loss":0.30000000000000004,"learning_rate":0.0004,"grad_norm":1e-09,"tokens_per_s":1e+21,"tokens":9,"seconds":0.3333333333333333}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got = string(ValidationRecord{Step: 7, Loss: 2.5, BitsPerByte: math.NaN()}.AppendJSON(nil))
	if want := `{"step":7,"val_loss":2.5}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	got = string(StepRecord{Loss: math.Inf(1), GradNorm: math.NaN()}.AppendJSON(nil))
	if !json.Valid([]byte(got)) || !strings.Contains(got, `"loss":null`) {
		t.Errorf("values that are not finite: %s", got)
	}
}

// Every float is read back to its last bit.
func TestMetricsKeepAllDigits(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	w, err := OpenMetrics(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	var want Metrics
	for step := int64(1); step <= 200; step++ {
		rec := StepRecord{Step: step, Loss: float64(float32(r.ExpFloat64())), LearningRate: r.Float64() * 1e-12,
			GradNorm: r.ExpFloat64() * 1e25, TokensPerSecond: r.Float64(), Tokens: r.Int64(), Seconds: math.NaN()}
		val := ValidationRecord{Step: step, Loss: r.NormFloat64(), BitsPerByte: r.Float64()}
		want.Steps = append(want.Steps, rec)
		want.Validations = append(want.Validations, val)
		if err := w.Step(rec); err != nil {
			t.Fatal(err)
		}
		if err := w.Validation(val); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Steps { // NaN is not equal to itself
		if !math.IsNaN(got.Steps[i].Seconds) {
			t.Fatalf("seconds %v, want NaN", got.Steps[i].Seconds)
		}
		got.Steps[i].Seconds, want.Steps[i].Seconds = 0, 0
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("the records differ from those that were written")
	}
}

// The file of a run that was killed after step 5, validated at 2 and 4, with what a crash may leave at its end.
func TestMetricsAreCutBack(t *testing.T) {
	var lines []string
	for step := int64(1); step <= 5; step++ {
		lines = append(lines, string(record(step).AppendJSON(nil)))
		if step%2 == 0 {
			lines = append(lines, string(ValidationRecord{Step: step, Loss: 3, BitsPerByte: 2}.AppendJSON(nil)))
		}
	}
	whole := strings.Join(lines, "\n") + "\n"
	for name, tail := range map[string]string{
		"whole": "", "torn": `{"step":6,"lo`, "parses but has no end": `{"step":3,"loss":1.25}`, "zeros": "\x00\x00\x00\n\x00\x00",
	} {
		for after := int64(0); after <= 6; after++ {
			path := filepath.Join(t.TempDir(), MetricsFile)
			if err := os.WriteFile(path, []byte(whole+tail), 0o644); err != nil {
				t.Fatal(err)
			}
			w, err := OpenMetrics(path, after)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := w.Step(record(after + 1)); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			m, err := ReadMetrics(path)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var want []int64
			for s := int64(1); s <= min(after, 5); s++ {
				want = append(want, s)
			}
			want = append(want, after+1)
			var got []int64
			for _, s := range m.Steps {
				got = append(got, s.Step)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, resumed after step %d: steps %v, want %v", name, after, got, want)
			}
			if len(m.Validations) != int(min(after, 5)/2) {
				t.Errorf("%s, resumed after step %d: %d validations", name, after, len(m.Validations))
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		}
	}
}

func TestForeignMetricsAreNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	text := "my notes\n" + string(record(1).AppendJSON(nil)) + "\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := OpenMetrics(path, 0)
	if err == nil || !strings.Contains(err.Error(), path+":1 ") {
		t.Errorf("error %v, want one that names line 1 of the file", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != text {
		t.Errorf("the file was changed: %q %v", now, err)
	}
}

func TestReadMetricsSkipsUnknownKinds(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	text := `{"step":1,"loss":2,"new":[1]}` + "\n" + `{"step":1,"event":"saved"}` + "\r\n" + `{"step":1,"val_loss":3}` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := ReadMetrics(path)
	if err != nil || len(m.Steps) != 1 || len(m.Validations) != 1 || m.Steps[0].Loss != 2 || !math.IsNaN(m.Steps[0].GradNorm) {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := ReadMetrics(path + "x"); err == nil {
		t.Error("a missing file is read")
	}
}

// A step's record must not allocate once the line's buffer has its size.
func TestMetricsStepDoesNotAllocate(t *testing.T) {
	w, err := OpenMetrics(filepath.Join(t.TempDir(), MetricsFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if n := testing.AllocsPerRun(50, func() {
		if err := w.Step(record(1)); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add([]byte(`{"step":1,"loss":2}`+"\n"), int64(0))
	f.Add([]byte("{\"step\":1e3}\n{\"step\":null}\nx\n"), int64(5))
	f.Fuzz(func(t *testing.T, data []byte, after int64) {
		path := filepath.Join(t.TempDir(), MetricsFile)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		w, err := OpenMetrics(path, after)
		if err != nil {
			return
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		m, err := ReadMetrics(path)
		if err != nil {
			t.Fatalf("a file that was cut is not readable: %v", err)
		}
		for _, s := range m.Steps {
			if s.Step > after {
				t.Fatalf("step %d is beyond %d", s.Step, after)
			}
		}
	})
}
