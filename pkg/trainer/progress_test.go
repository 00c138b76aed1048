package trainer

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestLineProgress(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	p := &lineProgress{out: &out, now: func() time.Time { return clock }, every: lineInterval}
	p.Note("preparing")
	p.Start(Span{Done: 10, Last: 40}) // resumed
	for step := int64(11); step <= 40; step++ {
		took := time.Second
		if step == 11 {
			took = 30 * time.Second // compiles the graph
		}
		clock = clock.Add(took)
		p.Step(StepRecord{Step: step, Loss: 2.5, LearningRate: 4e-4, GradNorm: 1.25, TokensPerSecond: 1234.4})
		if step == 20 {
			p.Validation(ValidationRecord{Step: 20, Loss: 2.25, BitsPerByte: 1.5})
			p.Validation(ValidationRecord{Step: 20, Loss: 2.25, BitsPerByte: math.NaN()})
		}
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	want := `preparing
step 11/40  loss 2.5000  grad_norm 1.25  learning_rate 0.0004  1234 tokens/s
step 20  val_loss 2.2500  val_bits_per_byte 1.5000
step 20  val_loss 2.2500
step 21/40  loss 2.5000  grad_norm 1.25  learning_rate 0.0004  1234 tokens/s  19s left
step 31/40  loss 2.5000  grad_norm 1.25  learning_rate 0.0004  1234 tokens/s  9s left
step 40/40  loss 2.5000  grad_norm 1.25  learning_rate 0.0004  1234 tokens/s
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestPace(t *testing.T) {
	var p pace
	clock := time.Unix(0, 0)
	p.start(clock)
	took := func(d time.Duration) { clock = clock.Add(d); p.step(clock) }
	expect := func(what string, seconds float64) {
		t.Helper()
		if got, known := p.perStep(); !known || math.Abs(got/1e9-seconds) > 1e-9 {
			t.Errorf("%s: %v s per step (%v), want %v", what, got/1e9, known, seconds)
		}
	}
	took(time.Minute)
	if _, known := p.perStep(); known {
		t.Error("known from the first step, which builds the graph")
	}
	for range 9 {
		took(time.Second)
	}
	expect("even steps", 1)
	took(6 * time.Second)
	expect("a validation counts", 1.5)
	for range 90 {
		took(time.Second)
	}
	took(10 * time.Hour) // the laptop slept
	expect("a long pause counts as 20 steps", (98+6+20)/100.0)
	for range 100 {
		took(2 * time.Second)
	}
	expect("only recent steps count", 2)
}

func TestRoundDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "1s": time.Millisecond, "59s": 59 * time.Second, "1m00s": time.Minute - time.Millisecond, "59m59s": time.Hour - time.Second,
		"1h00m": time.Hour, "47h59m": 48*time.Hour - time.Minute, "2d00h": 48 * time.Hour, "100d05h": 2405 * time.Hour,
	} {
		if got := roundDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// What stays on a terminal: notes and validations in full lines, each preceded by the bar's line being cleared, and the last step.
func TestBarProgress(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	p := &barProgress{out: &out, now: func() time.Time { return clock }}
	p.Note("preparing")
	for _, span := range []Span{{Done: 0, Last: 3}, {Done: 3, Last: 3}, {Done: 0, Last: 0}} { // also with nothing to do
		p.Start(span)
		for step := span.Done + 1; step <= span.Last; step++ {
			clock = clock.Add(time.Second)
			p.Step(StepRecord{Step: step, Loss: 2, TokensPerSecond: 10})
		}
		p.Validation(ValidationRecord{Step: span.Last, Loss: 1, BitsPerByte: math.NaN()})
		if err := errors.Join(p.Stop(), p.Stop()); err != nil {
			t.Fatal(err)
		}
	}
	var kept []string
	for line := range strings.SplitSeq(out.String(), "\n") {
		// A terminal shows what was written after the line was last cleared.
		if i := strings.LastIndex(line, "\x1b[2K\r"); i >= 0 {
			line = line[i+len("\x1b[2K\r"):]
		}
		kept = append(kept, line)
	}
	want := []string{"preparing", "step 3  val_loss 1.0000", "step 3/3  loss 2.0000  10 tokens/s", "step 3  val_loss 1.0000", "step 3/3", "step 0  val_loss 1.0000", "step 0/0", ""}
	if strings.Join(kept, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%q\nwant:\n%q", kept, want)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestJSONReporter(t *testing.T) {
	var out, notes bytes.Buffer
	r := Tee(NewJSONReporter(&out, &notes), Discard)
	r.Start(Span{Last: 2})
	r.Step(record(1))
	r.Note("saved")
	r.Validation(ValidationRecord{Step: 1, Loss: 2, BitsPerByte: 1})
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	want := string(record(1).AppendJSON(nil)) + "\n" + `{"step":1,"val_loss":2,"val_bits_per_byte":1}` + "\n"
	if out.String() != want || notes.String() != "saved\n" {
		t.Errorf("out %q, notes %q", out.String(), notes.String())
	}
	r = NewJSONReporter(brokenWriter{}, &notes)
	r.Step(record(1))
	if err := r.Stop(); err == nil || !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("a reader that is gone: %v", err)
	}
}

func TestNewProgressWithoutTerminal(t *testing.T) {
	if _, ok := NewProgress(&bytes.Buffer{}).(*lineProgress); !ok {
		t.Error("a buffer is taken for a terminal")
	}
}
