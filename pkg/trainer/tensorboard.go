package trainer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"meap/internal/durable"
)

// Field numbers and values of TensorFlow's event.proto and summary.proto, as far as scalars need them.
const (
	eventWallTime    = 1 // double, seconds since 1970
	eventStep        = 2 // int64
	eventFileVersion = 3 // string, only in a file's first event
	eventSummary     = 5 // Summary
	eventSessionLog  = 7 // SessionLog

	sessionLogStatus = 1 // enum
	sessionLogStart  = 1

	summaryValue     = 1 // repeated Value
	valueTag         = 1 // string
	valueSimpleValue = 2 // float

	eventFormat = "brain.Event:2"
)

// EventWriter writes a TensorBoard event file: protobuf events in TFRecord framing, each written at once, so that a killed process
// leaves what was reported. The scalars have the names of the records' keys.
type EventWriter struct {
	file   *os.File
	now    func() time.Time
	event  []byte
	record []byte
}

// Scalar is one named value of a step.
type Scalar struct {
	Name  string
	Value float64
}

// OpenEvents starts a new event file in a folder (created where missing) for a run that continues after step `after` (0: from the start).
// TensorBoard merges the files of a folder; where an interrupted run wrote steps beyond `after`, it drops them on reading the START
// event that every file begins with: that names the first step that is about to be run again.
func OpenEvents(dir string, after int64) (*EventWriter, error) {
	return openEvents(dir, after, time.Now)
}

func openEvents(dir string, after int64, now func() time.Time) (*EventWriter, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the folder of TensorBoard events: %w", durable.DescribeDiskFull(err, dir))
	}
	file, err := createEventFile(dir, now())
	if err != nil {
		return nil, fmt.Errorf("create a TensorBoard event file: %w", durable.DescribeDiskFull(err, dir))
	}
	w := &EventWriter{file: file, now: now}
	w.begin(0)
	w.event = protowire.AppendTag(w.event, eventFileVersion, protowire.BytesType)
	w.event = protowire.AppendString(w.event, eventFormat)
	err = w.end()
	if err == nil {
		first := after + 1
		if after == 0 {
			first = 0 // a run that was killed before its first checkpoint leaves nothing that stays
		}
		w.begin(first)
		w.event = protowire.AppendTag(w.event, eventSessionLog, protowire.BytesType)
		w.event = protowire.AppendBytes(w.event,
			protowire.AppendVarint(protowire.AppendTag(nil, sessionLogStatus, protowire.VarintType), sessionLogStart))
		err = w.end()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return w, nil
}

// createEventFile creates a file of a name that is new in the folder. TensorBoard reads the files of a folder in the order of their names,
// so these begin with the time and, within one second, with a number.
func createEventFile(dir string, now time.Time) (*os.File, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	for number := 0; ; number++ {
		name := fmt.Sprintf("events.out.tfevents.%010d.%03d.%s", now.Unix(), number, host)
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) || number == 999 {
			return file, err
		}
	}
}

// Step writes the scalars of an optimiser step.
func (w *EventWriter) Step(r StepRecord) error {
	return w.Scalars(r.Step,
		Scalar{"loss", r.Loss}, Scalar{"learning_rate", r.LearningRate}, Scalar{"grad_norm", r.GradNorm}, Scalar{"tokens_per_s", r.TokensPerSecond})
}

// Validation writes the scalars of a validation.
func (w *EventWriter) Validation(r ValidationRecord) error {
	scalars := []Scalar{{"val_loss", r.Loss}, {"val_bits_per_byte", r.BitsPerByte}}
	if math.IsNaN(r.BitsPerByte) {
		scalars = scalars[:1]
	}
	return w.Scalars(r.Step, scalars...)
}

// Scalars writes one event with the given values, rounded to float32 as the format wants.
func (w *EventWriter) Scalars(step int64, scalars ...Scalar) error {
	var summary, value []byte
	for _, s := range scalars {
		value = protowire.AppendTag(value[:0], valueTag, protowire.BytesType)
		value = protowire.AppendString(value, s.Name)
		value = protowire.AppendTag(value, valueSimpleValue, protowire.Fixed32Type)
		value = protowire.AppendFixed32(value, math.Float32bits(float32(s.Value)))
		summary = protowire.AppendTag(summary, summaryValue, protowire.BytesType)
		summary = protowire.AppendBytes(summary, value)
	}
	w.begin(step)
	w.event = protowire.AppendTag(w.event, eventSummary, protowire.BytesType)
	w.event = protowire.AppendBytes(w.event, summary)
	return w.end()
}

// begin starts an event with its time and step; end writes it.
func (w *EventWriter) begin(step int64) {
	w.event = protowire.AppendTag(w.event[:0], eventWallTime, protowire.Fixed64Type)
	w.event = protowire.AppendFixed64(w.event, math.Float64bits(float64(w.now().UnixMicro())/1e6))
	w.event = protowire.AppendTag(w.event, eventStep, protowire.VarintType)
	w.event = protowire.AppendVarint(w.event, uint64(step))
}

func (w *EventWriter) end() error {
	w.record = appendTFRecord(w.record[:0], w.event)
	if _, err := w.file.Write(w.record); err != nil {
		return fmt.Errorf("write TensorBoard events: %w", durable.DescribeDiskFull(err, filepath.Dir(w.file.Name())))
	}
	return nil
}

// Sync makes everything written so far durable.
func (w *EventWriter) Sync() error {
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("write TensorBoard events: %w", durable.DescribeDiskFull(err, filepath.Dir(w.file.Name())))
	}
	return nil
}

// Close makes everything durable and closes the file.
func (w *EventWriter) Close() error {
	return errors.Join(w.Sync(), w.file.Close())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendTFRecord appends data as a TFRecord: its length (uint64), the length's checksum, the data, the data's checksum, little-endian.
func appendTFRecord(b, data []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(b[start:]))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, maskedCRC(data))
}

// maskedCRC is CRC-32C, rotated right by 15 bits plus a constant: TensorFlow's lib/hash/crc32c.h, made for checksums that are stored
// inside of data that is checksummed again.
func maskedCRC(data []byte) uint32 {
	c := crc32.Checksum(data, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}
