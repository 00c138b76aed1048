package trainer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"meap/internal/durable"
)

// MetricsFile is the name of the metrics file in a run's output folder.
const MetricsFile = "metrics.jsonl"

// StepRecord is what one optimiser step reports: a line of metrics.jsonl and of --json on standard output.
type StepRecord struct {
	Step            int64   `json:"step"`          // counted from 1
	Loss            float64 `json:"loss"`          // mean over all labelled tokens of the step, nats
	LearningRate    float64 `json:"learning_rate"` // of this step
	GradNorm        float64 `json:"grad_norm"`     // before clipping
	TokensPerSecond float64 `json:"tokens_per_s"`  // input tokens of the step / its duration
	Tokens          int64   `json:"tokens"`        // input tokens since the start of the run, this step included
	Seconds         float64 `json:"seconds"`       // duration of the step
}

// ValidationRecord is what one validation reports.
type ValidationRecord struct {
	Step        int64   `json:"step"`              // optimiser steps done when it was measured
	Loss        float64 `json:"val_loss"`          // mean over all validated tokens, nats, unmasked inputs
	BitsPerByte float64 `json:"val_bits_per_byte"` // NaN where the validation text's bytes are not known
}

// AppendJSON appends the record as one JSON object without a line end. Floats have all digits that are needed to read the same
// value back; JSON has no word for NaN and infinities, so these become null.
func (r StepRecord) AppendJSON(b []byte) []byte {
	b = append(b, `{"step":`...)
	b = strconv.AppendInt(b, r.Step, 10)
	b = appendFloat(b, "loss", r.Loss)
	b = appendFloat(b, "learning_rate", r.LearningRate)
	b = appendFloat(b, "grad_norm", r.GradNorm)
	b = appendFloat(b, "tokens_per_s", r.TokensPerSecond)
	b = append(b, `,"tokens":`...)
	b = strconv.AppendInt(b, r.Tokens, 10)
	b = appendFloat(b, "seconds", r.Seconds)
	return append(b, '}')
}

// MarshalJSON is AppendJSON for encoding/json.
func (r StepRecord) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil), nil }

// AppendJSON appends the record as one JSON object without a line end, floats as StepRecord.AppendJSON writes them.
func (r ValidationRecord) AppendJSON(b []byte) []byte {
	b = append(b, `{"step":`...)
	b = strconv.AppendInt(b, r.Step, 10)
	b = appendFloat(b, "val_loss", r.Loss)
	if !math.IsNaN(r.BitsPerByte) {
		b = appendFloat(b, "val_bits_per_byte", r.BitsPerByte)
	}
	return append(b, '}')
}

// MarshalJSON is AppendJSON for encoding/json.
func (r ValidationRecord) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil), nil }

func appendFloat(b []byte, name string, v float64) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// MetricsWriter appends records to metrics.jsonl, each with one write of its own: a killed process leaves every record that was reported.
type MetricsWriter struct {
	file *os.File
	line []byte
}

// OpenMetrics opens the metrics file for a run that continues after step `after` (0: from the start). What an interrupted run wrote
// beyond that step, a torn last line included, is cut off: the steps are about to be run again. The file is replaced as a whole, so
// a crash in the middle leaves the old one.
func OpenMetrics(path string, after int64) (*MetricsWriter, error) {
	if err := cutMetrics(path, after); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the metrics file: %w", err)
	}
	return &MetricsWriter{file: file}, nil
}

// Step appends the record of an optimiser step.
func (w *MetricsWriter) Step(r StepRecord) error {
	w.line = r.AppendJSON(w.line[:0])
	return w.write()
}

// Validation appends the record of a validation.
func (w *MetricsWriter) Validation(r ValidationRecord) error {
	w.line = r.AppendJSON(w.line[:0])
	return w.write()
}

func (w *MetricsWriter) write() error {
	w.line = append(w.line, '\n')
	if _, err := w.file.Write(w.line); err != nil {
		return fmt.Errorf("write metrics: %w", durable.DescribeDiskFull(err, filepath.Dir(w.file.Name())))
	}
	return nil
}

// Sync makes everything written so far durable. Call it before a checkpoint is written, so that the records up to the checkpoint's
// step outlive a power failure with it.
func (w *MetricsWriter) Sync() error {
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("write metrics: %w", durable.DescribeDiskFull(err, filepath.Dir(w.file.Name())))
	}
	return nil
}

// Close makes everything durable and closes the file.
func (w *MetricsWriter) Close() error {
	return errors.Join(w.Sync(), w.file.Close())
}

// Metrics are the records of a run, in the order of the file.
type Metrics struct {
	Steps       []StepRecord
	Validations []ValidationRecord
}

// ReadMetrics reads a metrics file, that of a run in progress included: a torn last line is left out. Objects of kinds that this
// version does not know are skipped.
func ReadMetrics(path string) (Metrics, error) {
	file, err := os.Open(path)
	if err != nil {
		return Metrics{}, fmt.Errorf("read metrics: %w", err)
	}
	defer file.Close()
	var m Metrics
	err = scanMetrics(file, func(_ []byte, r metricsLine) error {
		switch {
		case r.ValLoss.present:
			m.Validations = append(m.Validations, ValidationRecord{
				Step: *r.Step, Loss: r.ValLoss.orNaN(), BitsPerByte: r.ValBitsPerByte.orNaN(),
			})
		case r.Loss.present:
			m.Steps = append(m.Steps, StepRecord{
				Step: *r.Step, Loss: r.Loss.orNaN(), LearningRate: r.LearningRate.orNaN(), GradNorm: r.GradNorm.orNaN(),
				TokensPerSecond: r.TokensPerSecond.orNaN(), Tokens: r.Tokens, Seconds: r.Seconds.orNaN(),
			})
		}
		return nil
	})
	return m, err
}

// cutMetrics drops the records beyond step `after` from the file, where there is one.
func cutMetrics(path string, after int64) error {
	old, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the metrics file: %w", err)
	}
	defer old.Close()
	return durable.Replace(path, func(w io.Writer) error {
		return scanMetrics(old, func(line []byte, r metricsLine) error {
			if *r.Step > after {
				return nil
			}
			_, err := w.Write(append(line, '\n'))
			return err
		})
	})
}

// scanMetrics calls visit for each record. What a crash left at the end of the file (half a line, or blocks of zeros after a power
// failure) is passed over; something unreadable before a good record is an error, because then the file is not ours to cut.
func scanMetrics(file *os.File, visit func(line []byte, r metricsLine) error) error {
	lines := bufio.NewReaderSize(file, 1<<16)
	broken := 0
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read metrics: %w", err)
		}
		if errors.Is(err, io.EOF) {
			return nil // a line without its end is torn, even where it happens to parse: 1.25 may have been 1.253
		}
		line = bytes.TrimRight(line, "\r\n")
		var r metricsLine
		if err := json.Unmarshal(line, &r); err != nil || r.Step == nil {
			if broken == 0 {
				broken = number
			}
			continue
		}
		if broken != 0 {
			return fmt.Errorf("read metrics: %s:%d is not a metrics record: mend or move the file, it is not changed", file.Name(), broken)
		}
		if err := visit(line, r); err != nil {
			return err
		}
	}
}

// metricsLine is the union of the records, as a line is read.
type metricsLine struct {
	Step            *int64        `json:"step"`
	Loss            optionalFloat `json:"loss"`
	LearningRate    optionalFloat `json:"learning_rate"`
	GradNorm        optionalFloat `json:"grad_norm"`
	TokensPerSecond optionalFloat `json:"tokens_per_s"`
	Tokens          int64         `json:"tokens"`
	Seconds         optionalFloat `json:"seconds"`
	ValLoss         optionalFloat `json:"val_loss"`
	ValBitsPerByte  optionalFloat `json:"val_bits_per_byte"`
}

// optionalFloat tells a key that is not there from null, which stands for a value that was not finite.
type optionalFloat struct {
	value   float64
	present bool
}

func (f *optionalFloat) UnmarshalJSON(b []byte) error {
	f.value, f.present = math.NaN(), true
	if string(b) == "null" {
		return nil
	}
	return json.Unmarshal(b, &f.value)
}

func (f optionalFloat) orNaN() float64 {
	if !f.present {
		return math.NaN()
	}
	return f.value
}
