package trainer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Checksums from RFC 3720, appendix B.4, masked as TensorFlow's crc32c.h says.
func TestMaskedCRC(t *testing.T) {
	mask := func(crc uint32) uint32 { return (crc>>15 | crc<<17) + 0xa282ead8 }
	ascending := make([]byte, 32)
	for i := range ascending {
		ascending[i] = byte(i)
	}
	for _, c := range []struct {
		data []byte
		crc  uint32
	}{
		{make([]byte, 32), 0x8a9136aa},
		{bytes.Repeat([]byte{0xff}, 32), 0x62a8ab43},
		{ascending, 0x46dd794e},
	} {
		if got := maskedCRC(c.data); got != mask(c.crc) {
			t.Errorf("maskedCRC(%x) = %08x, want %08x", c.data, got, mask(c.crc))
		}
	}
}

// The first event, byte for byte: the one that TensorBoard's own writer begins every file with, at time 0.
func TestEventFileHeader(t *testing.T) {
	dir := t.TempDir()
	w, err := openEvents(dir, 0, func() time.Time { return time.Unix(0, 0) })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data := readEventFiles(t, dir)[0]
	event := append([]byte{1<<3 | 1}, make([]byte, 8)...) // wall_time: fixed64 0
	event = append(event, 2<<3, 0)                        // step: varint 0
	event = append(event, 3<<3|2, 13)                     // file_version: 13 bytes
	event = append(event, "brain.Event:2"...)
	if len(data) < 16+len(event) || data[0] != byte(len(event)) || !bytes.Equal(data[12:12+len(event)], event) {
		t.Errorf("file:\n%s\nevent:\n%s", hex.Dump(data), hex.Dump(event))
	}
}

// decoded is one event as a reader sees it.
type decoded struct {
	wall    float64
	step    int64
	version string
	start   bool
	scalars map[string]float32
}

func readEventFiles(t *testing.T, dir string) [][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if err != nil {
		t.Fatal(err)
	}
	var files [][]byte
	for _, name := range names { // in the order of names, as TensorBoard reads them
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
	}
	return files
}

// decode reads a file with checks of its own: framing, checksums and every field.
func decode(t *testing.T, data []byte) []decoded {
	t.Helper()
	sum := func(b []byte) uint32 {
		c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return (c>>15 | c<<17) + 0xa282ead8
	}
	// fields calls visit with each field's number and raw value.
	fields := func(b []byte, visit func(n protowire.Number, varint uint64, raw []byte)) {
		for len(b) > 0 {
			n, typ, size := protowire.ConsumeTag(b)
			if size < 0 {
				t.Fatal(protowire.ParseError(size))
			}
			b = b[size:]
			var v uint64
			var raw []byte
			switch typ {
			case protowire.VarintType:
				v, size = protowire.ConsumeVarint(b)
			case protowire.Fixed64Type:
				v, size = protowire.ConsumeFixed64(b)
			case protowire.Fixed32Type:
				var v32 uint32
				v32, size = protowire.ConsumeFixed32(b)
				v = uint64(v32)
			case protowire.BytesType:
				raw, size = protowire.ConsumeBytes(b)
			}
			if size < 0 {
				t.Fatal(protowire.ParseError(size))
			}
			b = b[size:]
			visit(n, v, raw)
		}
	}
	var events []decoded
	for len(data) > 0 {
		n := binary.LittleEndian.Uint64(data)
		if got := binary.LittleEndian.Uint32(data[8:]); got != sum(data[:8]) {
			t.Fatalf("checksum of the length: %08x", got)
		}
		body := data[12 : 12+n]
		if got := binary.LittleEndian.Uint32(data[12+n:]); got != sum(body) {
			t.Fatalf("checksum of the event: %08x", got)
		}
		data = data[16+n:]
		e := decoded{scalars: map[string]float32{}}
		fields(body, func(n protowire.Number, v uint64, raw []byte) {
			switch n {
			case 1:
				e.wall = math.Float64frombits(v)
			case 2:
				e.step = int64(v)
			case 3:
				e.version = string(raw)
			case 5:
				fields(raw, func(_ protowire.Number, _ uint64, value []byte) {
					var tag string
					var x float32
					fields(value, func(n protowire.Number, v uint64, raw []byte) {
						switch n {
						case 1:
							tag = string(raw)
						case 2:
							x = math.Float32frombits(uint32(v))
						}
					})
					e.scalars[tag] = x
				})
			case 7:
				fields(raw, func(n protowire.Number, v uint64, _ []byte) { e.start = n == 1 && v == 1 })
			default:
				t.Fatalf("unexpected field %d", n)
			}
		})
		events = append(events, e)
	}
	return events
}

func TestEventsReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tensorboard")
	clock := time.Unix(1_700_000_000, 250_000_000)
	now := func() time.Time { return clock }
	w, err := openEvents(dir, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	for step := int64(1); step <= 7; step++ {
		if err := w.Step(record(step)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Validation(ValidationRecord{Step: 7, Loss: 2, BitsPerByte: math.NaN()}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, err = openEvents(dir, 5, now) // resumed after step 5, in the same second
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Step(record(6)); err != nil {
		t.Fatal(err)
	}
	if err := w.Validation(ValidationRecord{Step: 6, Loss: 2, BitsPerByte: 1.5}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	files := readEventFiles(t, dir)
	if len(files) != 2 {
		t.Fatalf("%d files, want 2", len(files))
	}
	first, second := decode(t, files[0]), decode(t, files[1])
	if len(first) != 10 || len(second) != 4 {
		t.Fatalf("%d and %d events, want 10 and 4", len(first), len(second))
	}
	if first[0].version != "brain.Event:2" || first[0].wall != 1_700_000_000.25 {
		t.Errorf("first event: %+v", first[0])
	}
	want := record(3)
	if e := first[4]; e.step != 3 || e.scalars["loss"] != float32(want.Loss) || e.scalars["learning_rate"] != float32(want.LearningRate) ||
		e.scalars["grad_norm"] != float32(want.GradNorm) || e.scalars["tokens_per_s"] != float32(want.TokensPerSecond) || len(e.scalars) != 4 {
		t.Errorf("step 3: %+v", e)
	}
	if e := first[9]; len(e.scalars) != 1 || e.scalars["val_loss"] != 2 {
		t.Errorf("a validation without bytes: %+v", e)
	}
	if e := second[1]; !e.start || e.step != 6 {
		t.Errorf("a resumed run's file must drop step 6 and later ones first: %+v", e)
	}
	if e := first[1]; !e.start || e.step != 0 {
		t.Errorf("a fresh run's file must drop whatever is there: %+v", e)
	}
	if e := second[3]; e.scalars["val_bits_per_byte"] != 1.5 {
		t.Errorf("validation: %+v", e)
	}
}
