package dialogue

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"meap/pkg/dataset"
	"meap/pkg/masking"
)

// Options say how examples are made and how long they may be.
type Options struct {
	Config   Config
	Template *Template
	Policy   masking.Targets
	Seq      int // trainer.seq
	Workers  int // 0: one per core; the examples do not depend on it
}

// Set is the data of a run: examples in the order of their files and lines.
type Set struct {
	Train, Validation []Example
	Report            Report
}

// Report says what became of the dialogues.
type Report struct {
	Dialogues int       // read
	Cut       int       // of which the last turns were left out, because they did not fit into trainer.seq
	Skipped   []Skipped // left out
}

// Skipped is a dialogue that was left out.
type Skipped struct {
	File string
	Line int
	Err  error
}

func (s Skipped) Error() string { return fmt.Sprintf("%s:%d: %v", s.File, s.Line, s.Err) }

// Unwrap returns the reason.
func (s Skipped) Unwrap() error { return s.Err }

// String counts what was left out by reason, and says where the first of each is.
func (r Report) String() string {
	var parts []string
	for _, reason := range []error{errBroken, errShape, errRole, errEmpty, errEmptyAnswer, errTemplate, errTooLong} {
		n, first := 0, Skipped{}
		for _, s := range r.Skipped {
			if errors.Is(s, reason) {
				if n == 0 {
					first = s
				}
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%v: %d (first %s:%d)", reason, n, first.File, first.Line))
		}
	}
	return strings.Join(parts, "; ")
}

// Load reads the dialogues of data.sources and data.validation. What cannot be used is left out and reported, or with sft.strict an
// error. The dialogues that data.validation_fraction holds out are chosen by their tokens, so that a dialogue that occurs twice is
// on one side only.
func Load(ctx context.Context, data dataset.Config, o Options) (*Set, error) {
	if len(data.Sources) == 0 {
		return nil, &dataset.ConfigError{Problem: errors.New("data.sources: name the files that hold the dialogues, one JSON object per line")}
	}
	var s Set
	var err error
	if s.Train, err = s.read(ctx, "data.sources", data.Sources, o); err != nil {
		return nil, err
	}
	switch {
	case len(data.Validation) > 0:
		if s.Validation, err = s.read(ctx, "data.validation", data.Validation, o); err != nil {
			return nil, err
		}
	case data.ValidationFraction > 0:
		s.Train, s.Validation = holdOut(s.Train, data.ValidationFraction)
	}
	switch {
	case len(s.Train) > 0:
	case len(s.Validation) > 0 && len(data.Validation) == 0:
		return nil, fmt.Errorf("data.validation_fraction = %v holds out all that can be trained on, %d of %d dialogues; set it to 0 or give more dialogues",
			data.ValidationFraction, len(s.Validation), s.Report.Dialogues)
	default:
		return nil, fmt.Errorf("data.sources: none of the %d dialogues can be trained on: %v", s.Report.Dialogues, s.Report)
	}
	return &s, nil
}

// read makes the examples of a list of sources.
func (s *Set) read(ctx context.Context, key string, sources []string, o Options) ([]Example, error) {
	paths, err := dataset.ListFiles(key, sources, endings)
	if err != nil {
		return nil, err
	}
	var lines []line
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		more, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		lines = append(lines, more...)
	}
	made := make([]made, len(lines))
	workers := o.Workers
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(lines) && ctx.Err() == nil; i = next.Add(1) - 1 {
				made[i] = o.make(lines[i].text)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var examples []Example
	for i, m := range made {
		s.Report.Dialogues += len(m.examples) + len(m.problems)
		s.Report.Cut += m.cut
		examples = append(examples, m.examples...)
		for _, problem := range m.problems {
			skipped := Skipped{lines[i].file, lines[i].number, problem}
			if o.Config.Strict {
				return nil, fmt.Errorf("%w; mend it, or set sft.strict to false to leave such dialogues out", skipped)
			}
			s.Report.Skipped = append(s.Report.Skipped, skipped)
		}
	}
	return examples, nil
}

// made is what became of a line.
type made struct {
	examples []Example
	problems []error
	cut      int
}

func (o Options) make(text []byte) (m made) {
	dialogues, err := parse(text)
	if err != nil {
		m.problems = append(m.problems, err)
	}
	for _, d := range dialogues {
		e, err := o.Template.Encode(d)
		if err != nil {
			m.problems = append(m.problems, err)
			continue
		}
		n := o.fitting(e)
		if n == 0 {
			m.problems = append(m.problems, o.tooLong(e.turns(1)))
			continue
		}
		if n < len(e.Answers) {
			m.cut++
		}
		m.examples = append(m.examples, e.turns(n))
	}
	return m
}

// fitting returns how many of a dialogue's turns fit into a row, as they are laid out. Turns are kept whole: an answer that was cut
// off would teach to stop in the middle, and one without its end not to stop.
func (o Options) fitting(e Example) int {
	for n := len(e.Answers); n > 0; n-- {
		if o.longest(e.turns(n)) <= o.Seq {
			return n
		}
	}
	return 0
}

func (o Options) longest(e Example) int { return slices.Max(o.pieces(e)) }

func (o Options) tooLong(e Example) error {
	return fmt.Errorf("%w: the first answer ends at token %d (question %d), and with sft.copies = %s it takes %d of a row, which has trainer.seq = %d",
		errTooLong, len(e.IDs), e.Answers[0].Start, o.Config.Copies, o.longest(e), o.Seq)
}

// pieces returns the row tokens that each part of an example takes. A sequence of n tokens has n-1 inputs: nothing follows its last.
func (o Options) pieces(e Example) []int {
	n := len(e.IDs) - 1
	switch {
	case !o.Policy.Masks(e.Answers):
		return []int{n}
	case o.Config.Copies == CopiesConcat:
		return []int{len(e.IDs) + n}
	}
	return []int{n, n}
}

// holdOut takes a share of the examples out, rounded up, by a hash of their tokens; equal examples go the same way.
func holdOut(all []Example, fraction float64) (train, held []Example) {
	hashes := make([][sha256.Size]byte, len(all))
	for i, e := range all {
		hashes[i] = e.hash()
	}
	sorted := slices.Clone(hashes)
	slices.SortFunc(sorted, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	n := int(math.Ceil(fraction * float64(len(all))))
	if n == 0 {
		return all, nil
	}
	last := sorted[n-1]
	for i, e := range all {
		if bytes.Compare(hashes[i][:], last[:]) <= 0 {
			held = append(held, e)
		} else {
			train = append(train, e)
		}
	}
	return train, held
}

// hash is the SHA-256 of an example's tokens and answers.
func (e Example) hash() (sum [sha256.Size]byte) {
	h := sha256.New()
	number := func(v int) { _ = binary.Write(h, binary.LittleEndian, int64(v)) } // a hash takes everything
	number(len(e.IDs))
	_ = binary.Write(h, binary.LittleEndian, e.IDs)
	for _, a := range e.Answers {
		number(a.Start)
		number(a.End)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Fingerprint is the SHA-256, in hexadecimal, of the training examples in their order.
func (s *Set) Fingerprint() string {
	h := sha256.New()
	for _, e := range s.Train {
		sum := e.hash()
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Labels counts the labels of the unmasked copies: the tokens of all answers with their ends.
func Labels(examples []Example) (n int64) {
	for _, e := range examples {
		for _, a := range e.Answers {
			n += int64(a.Len()) + 1
		}
	}
	return n
}

// Tokens counts the tokens of all dialogues.
func Tokens(examples []Example) (n int64) {
	for _, e := range examples {
		n += int64(len(e.IDs))
	}
	return n
}
