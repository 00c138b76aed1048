package trainer

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Reporter is told how the training goes. The loop calls it from one goroutine and does not know who listens.
type Reporter interface {
	// Start comes before the first step of this process.
	Start(Span)
	// Step comes after each optimiser step.
	Step(StepRecord)
	// Validation comes after each validation.
	Validation(ValidationRecord)
	// Note passes on a line for people: a warning, a checkpoint that was written.
	Note(text string)
	// Stop comes last, also when the run fails. It returns the first error of writing what programs read.
	Stop() error
}

// Span says which steps this process runs.
type Span struct {
	Done int64 // steps done before it, by the run that is resumed
	Last int64 // the step after which it ends
}

// Discard is a Reporter that does nothing.
var Discard Reporter = discard{}

type discard struct{}

func (discard) Start(Span)                  {}
func (discard) Step(StepRecord)             {}
func (discard) Validation(ValidationRecord) {}
func (discard) Note(string)                 {}
func (discard) Stop() error                 { return nil }

// NewJSONReporter writes each record as one JSON object per line to out, and notes to notes.
func NewJSONReporter(out, notes io.Writer) Reporter {
	return &jsonReporter{out: out, notes: notes}
}

type jsonReporter struct {
	out, notes io.Writer
	line       []byte
	err        error
}

func (r *jsonReporter) Start(Span) {}

func (r *jsonReporter) Step(s StepRecord) {
	r.line = s.AppendJSON(r.line[:0])
	r.write()
}

func (r *jsonReporter) Validation(v ValidationRecord) {
	r.line = v.AppendJSON(r.line[:0])
	r.write()
}

func (r *jsonReporter) write() {
	r.line = append(r.line, '\n')
	if _, err := r.out.Write(r.line); err != nil && r.err == nil {
		r.err = fmt.Errorf("write --json records: %w", err)
	}
}

func (r *jsonReporter) Note(text string) { fmt.Fprintln(r.notes, text) }

func (r *jsonReporter) Stop() error { return r.err }

// NewProgress reports to people: one line that is redrawn where out is a terminal, else a plain line every few seconds.
func NewProgress(out io.Writer) Reporter {
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &barProgress{out: out, now: time.Now}
	}
	return &lineProgress{out: out, now: time.Now, every: lineInterval}
}

// Tee passes everything on to several reporters.
func Tee(reporters ...Reporter) Reporter { return tee(reporters) }

type tee []Reporter

func (t tee) Start(s Span) {
	for _, r := range t {
		r.Start(s)
	}
}

func (t tee) Step(s StepRecord) {
	for _, r := range t {
		r.Step(s)
	}
}

func (t tee) Validation(v ValidationRecord) {
	for _, r := range t {
		r.Validation(v)
	}
}

func (t tee) Note(text string) {
	for _, r := range t {
		r.Note(text)
	}
}

func (t tee) Stop() error {
	var errs []error
	for _, r := range t {
		errs = append(errs, r.Stop())
	}
	return errors.Join(errs...)
}

// lineInterval is the least time between two step lines where there is no terminal, so that a log of a long run stays readable.
const lineInterval = 10 * time.Second

// lineProgress writes plain lines: the first and the last step, one every interval between them, and every validation.
type lineProgress struct {
	out   io.Writer
	now   func() time.Time
	every time.Duration
	pace  pace
	span  Span
	shown time.Time
}

func (p *lineProgress) Start(s Span) {
	p.span = s
	p.pace = pace{}
	p.pace.start(p.now())
	p.shown = time.Time{}
}

func (p *lineProgress) Step(r StepRecord) {
	now := p.now()
	p.pace.step(now)
	if now.Sub(p.shown) < p.every && r.Step != p.span.Last {
		return
	}
	p.shown = now
	fmt.Fprintf(p.out, "step %d/%d  loss %.4f  grad_norm %.3g  learning_rate %.3g  %s\n",
		r.Step, p.span.Last, r.Loss, r.GradNorm, r.LearningRate, speed(r, p.span, &p.pace))
}

func (p *lineProgress) Validation(r ValidationRecord) { fmt.Fprintln(p.out, validationLine(r)) }

func (p *lineProgress) Note(text string) { fmt.Fprintln(p.out, text) }

func (p *lineProgress) Stop() error { return nil }

// barProgress redraws one line on a terminal; validations and notes stay above it.
type barProgress struct {
	out  io.Writer
	now  func() time.Time
	pace pace
	span Span
	bar  *progressbar.ProgressBar
	last string // description of the newest step
	// shown is when the bar was last drawn. The bar's own throttle would draw count and description of different steps.
	shown time.Time
}

const redrawInterval = 100 * time.Millisecond

func (p *barProgress) Start(s Span) {
	p.span = s
	p.pace = pace{}
	p.pace.start(p.now())
	p.bar = progressbar.NewOptions64(max(s.Last, 1),
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetWidth(20),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSetPredictTime(false), // it counts the steps before a resume as done by this process
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(),
	)
	p.last = fmt.Sprintf("step %d/%d", s.Done, s.Last)
	p.draw(s.Done)
}

// draw sets the bar to a step. A terminal that is gone is no reason to stop training, so its errors are passed over.
func (p *barProgress) draw(step int64) {
	_ = p.bar.Set64(min(step, p.span.Last))
	p.bar.Describe(p.last)
	p.shown = p.now()
}

func (p *barProgress) Step(r StepRecord) {
	now := p.now()
	p.pace.step(now)
	p.last = fmt.Sprintf("step %d/%d  loss %.4f  %s", r.Step, p.span.Last, r.Loss, speed(r, p.span, &p.pace))
	if now.Sub(p.shown) >= redrawInterval {
		p.draw(r.Step)
	}
}

func (p *barProgress) Validation(r ValidationRecord) { p.Note(validationLine(r)) }

func (p *barProgress) Note(text string) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintln(p.out, text)
	if p.bar != nil {
		_ = p.bar.RenderBlank()
	}
}

func (p *barProgress) Stop() error {
	if p.bar == nil {
		return nil
	}
	_ = p.bar.Clear()
	fmt.Fprintln(p.out, p.last)
	p.bar = nil
	return nil
}

func validationLine(r ValidationRecord) string {
	text := fmt.Sprintf("step %d  val_loss %.4f", r.Step, r.Loss)
	if !math.IsNaN(r.BitsPerByte) {
		text += fmt.Sprintf("  val_bits_per_byte %.4f", r.BitsPerByte)
	}
	return text
}

// speed is the end of a step's line: tokens per second of the step and the time left, once that is known.
func speed(r StepRecord, span Span, p *pace) string {
	text := fmt.Sprintf("%.0f tokens/s", r.TokensPerSecond)
	if each, ok := p.perStep(); ok && r.Step < span.Last {
		text += "  " + roundDuration(time.Duration(float64(span.Last-r.Step)*each)) + " left"
	}
	return text
}

// pace estimates the time per step from the newest steps of this process, validations and checkpoints between them included.
type pace struct {
	last   time.Time
	first  bool // the next step is the first one, which also pays for building the graph
	recent []float64
	next   int // where the newest goes once recent is full
}

const paceWindow = 100

func (p *pace) start(now time.Time) {
	p.last, p.first = now, true
}

func (p *pace) step(now time.Time) {
	took := float64(now.Sub(p.last))
	p.last = now
	switch {
	case p.first:
		p.first = false
	case len(p.recent) < paceWindow:
		p.recent = append(p.recent, took)
	default:
		p.recent[p.next] = took
		p.next = (p.next + 1) % paceWindow
	}
}

// perStep is the mean of the recent steps in nanoseconds, in which no step counts for more than 20 usual ones: a laptop that slept for an
// hour must not add hours to the time left. It is unknown before the second step of this process.
func (p *pace) perStep() (nanoseconds float64, known bool) {
	if len(p.recent) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(p.recent))
	limit := 20 * sorted[len(sorted)/2]
	sum := 0.0
	for _, took := range p.recent {
		sum += min(took, limit)
	}
	return sum / float64(len(p.recent)), true
}

// roundDuration writes a duration with two units at most: 42s, 12m05s, 3h12m, 5d03h.
func roundDuration(d time.Duration) string {
	s := int64(math.Ceil(d.Seconds()))
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}
