package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	pq "github.com/parquet-go/parquet-go/format"
)

// parquetTexts reads the texts of a file, "" for a null, at most limit of them.
func parquetTexts(data []byte, field string, limit int) ([]string, error) {
	p, err := openParquet(bytes.NewReader(data), int64(len(data)), field)
	if err != nil {
		return nil, err
	}
	var texts []string
	size := 0
	for text, err := range p.rows() {
		if err != nil {
			return texts, err
		}
		texts = append(texts, string(text))
		if size += len(text); len(texts) == limit || size > 1<<20 {
			break
		}
	}
	return texts, nil
}

// writeParquet writes rows with parquet-go.
func writeParquet[T any](t testing.TB, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	for i, row := range rows {
		if _, err := w.Write([]T{row}); err != nil {
			t.Fatal(err)
		}
		if i == len(rows)/2 { // two row groups
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// deltaSchema encodes text as DELTA_BYTE_ARRAY, for which there is no tag.
var deltaSchema = parquet.NewSchema("delta", parquet.Group{"text": parquet.Encoded(parquet.String(), &parquet.DeltaByteArray)})

// testTexts are short, long, equal, empty and not ASCII.
func testTexts() []string {
	r := rand.New(rand.NewPCG(1, 2))
	texts := []string{"", "one", "one", "", "zwölf Boxkämpfer", "日本語", strings.Repeat("long ", 30000), "\x00"}
	for range 3000 {
		texts = append(texts, strings.Repeat("abc", r.IntN(5))+fmt.Sprint(r.IntN(50)))
	}
	return texts
}

// What parquet-go writes, in every encoding and compression of text that it has, is read as it was written.
func TestParquetAsWritten(t *testing.T) {
	type plain struct {
		Other int64
		Text  string `parquet:"text,plain"`
	}
	type dict struct {
		Text  string `parquet:"text,dict"`
		Other int64
	}
	type length struct {
		Text string `parquet:"text,delta"`
	}
	type bare struct {
		Text string `parquet:"text"`
	}
	want := testTexts()
	encodings := map[string]func(...parquet.WriterOption) []byte{
		"plain": func(o ...parquet.WriterOption) []byte {
			return writeParquet(t, each(want, func(s string) plain { return plain{1, s} }), o...)
		},
		"dictionary": func(o ...parquet.WriterOption) []byte {
			return writeParquet(t, each(want, func(s string) dict { return dict{s, 2} }), o...)
		},
		"delta length": func(o ...parquet.WriterOption) []byte {
			return writeParquet(t, each(want, func(s string) length { return length{s} }), o...)
		},
		"delta": func(o ...parquet.WriterOption) []byte {
			return writeParquet(t, each(want, func(s string) bare { return bare{s} }), append(o, deltaSchema)...)
		},
	}
	codecs := []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Brotli, &parquet.Zstd, &parquet.Lz4Raw}
	for name, write := range encodings {
		for _, codec := range codecs {
			for version := 1; version <= 2; version++ {
				data := write(parquet.Compression(codec), parquet.DataPageVersion(version), parquet.PageBufferSize(4096))
				got, err := parquetTexts(data, "text", 1<<20)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s, %v, page version %d: %d texts of %d, %v", name, codec, version, len(got), len(want), err)
				}
			}
		}
	}
}

func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// Nulls, of the text and of what it is in, are rows without text.
func TestParquetNested(t *testing.T) {
	type inner struct {
		Body  *string `parquet:"body,optional"`
		Count int32
	}
	type outer struct {
		ID    string   `parquet:"id"`
		Meta  *inner   `parquet:"meta,optional"`
		Tags  []string `parquet:"tags,list"`
		Whole inner    `parquet:"whole"`
	}
	a, b := "a", "b"
	rows := []outer{
		{"1", &inner{&a, 1}, []string{"x", "y"}, inner{&b, 2}},
		{"2", nil, nil, inner{nil, 2}},
		{"3", &inner{nil, 1}, []string{"z"}, inner{&a, 2}},
		{"4", &inner{&b, 1}, nil, inner{&b, 2}},
	}
	for range 2000 { // runs of nulls
		rows = append(rows, outer{ID: "n"})
	}
	for version := 1; version <= 2; version++ {
		data := writeParquet(t, rows, parquet.DataPageVersion(version))
		for field, want := range map[string][]string{
			"id": {"1", "2", "3", "4"}, "meta.body": {"a", "", "", "b"}, "whole.body": {"b", "", "a", "b"},
		} {
			got, err := parquetTexts(data, field, 4)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q, %v", field, got, err)
			}
			if got, err := parquetTexts(data, field, 1<<20); err != nil || len(got) != len(rows) {
				t.Errorf("%s: %d rows, %v", field, len(got), err)
			}
		}
		for field, word := range map[string]string{
			"text":              `no column "text", its columns are ["id" "meta.body" "meta.Count" "tags.list.element"`,
			"tags.list.element": "holds lists",
			"meta.Count":        "holds no text but INT32",
		} {
			if _, err := parquetTexts(data, field, 1); err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "data.text_field") {
				t.Errorf("%s: %v, want %q", field, err, word)
			}
		}
	}
}

// The files under testdata were written by Arrow's C++ library, see scripts/peer/parquet.py.
func TestParquetOfArrow(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("Zeile %d: %s", i%17, strings.Repeat("ä", i%5)))
		if i%7 == 3 {
			want[i] = ""
		}
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"text", "doc.body"} {
			got, err := parquetTexts(data, field, 1<<20)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s, %s: %q, %v", path, field, got, err)
			}
		}
	}
}

func TestParquetRefuses(t *testing.T) {
	type row struct {
		Text string `parquet:"text,plain"`
	}
	good := writeParquet(t, []row{{"first text"}, {"second text"}, {"third text"}}, parquet.Compression(&parquet.Uncompressed))
	for word, change := range map[string]func([]byte) []byte{
		"truncated":               func(b []byte) []byte { return b[:len(b)-1] },
		"it has 4 bytes":          func(b []byte) []byte { return b[:4] },
		"its metadata has 429496": func(b []byte) []byte { copy(b[len(b)-8:], "\xff\xff\xff\xff"); return b },
		"its metadata is damaged": func(b []byte) []byte { b[len(b)-8-int(binary.LittleEndian.Uint32(b[len(b)-8:]))] = 0x1f; return b },
		"encrypted":               func(b []byte) []byte { return append(b[:len(b)-4], "PARE"...) },
	} {
		if _, err := parquetTexts(change(bytes.Clone(good)), "text", 10); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %q", err, word)
		}
	}
	data, err := os.ReadFile(filepath.Join("testdata", "gzip-plain.parquet")) // whose pages have checksums
	if err != nil {
		t.Fatal(err)
	}
	p, err := openParquet(bytes.NewReader(data), int64(len(data)), "text")
	if err != nil {
		t.Fatal(err)
	}
	p.position = p.chunks[0].DataPage
	if _, err := p.readHeader(); err != nil {
		t.Fatal(err)
	}
	data[p.position+4] ^= 1 // a byte of gzip's header that unpacking ignores
	if _, err := parquetTexts(data, "text", 10); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("%v", err)
	}
	bad := writeParquet(t, []row{{"good"}, {"bad \xff"}})
	if _, err := parquetTexts(bad, "text", 10); err == nil || !strings.HasPrefix(err.Error(), "row 2: the text is not UTF-8") {
		t.Errorf("%v", err)
	}
}

// Small files that ask for much memory are refused, or take little.
func TestParquetBombs(t *testing.T) {
	for name, data := range map[string]string{
		"list of 2^31 structures": "\x29\xfc\xff\xff\xff\xff\x07",
		"string of 2^31 bytes":    "\x48\xff\xff\xff\xff\x07",
		"nesting":                 strings.Repeat("\x1c", 1<<20),
		"nested lists":            "\x19" + strings.Repeat("\x19", 1<<20),
		"empty structures":        "\x49\xfc\x90\x4e" + strings.Repeat("\x00", 10001),
	} {
		var footer parquetFooter
		if _, err := decodeThrift([]byte(data), &footer); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var u pageUnpacker
	defer u.close()
	for _, codec := range []compress.Codec{&parquet.Snappy, &parquet.Gzip, &parquet.Brotli, &parquet.Zstd, &parquet.Lz4Raw} {
		packed, err := codec.Encode(nil, make([]byte, 1<<16))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 1<<16 - 1, 1<<16 + 1, maxParquetPage} {
			if _, err := u.unpack(codec.CompressionCodec(), packed, size); err == nil {
				t.Errorf("%v: 65536 bytes unpacked as %d", codec, size)
			}
			if cap(u.buf) > 1<<20 {
				t.Fatalf("%v: %d bytes taken for a page said to have %d", codec, cap(u.buf), size)
			}
		}
		if got, err := u.unpack(codec.CompressionCodec(), packed, 1<<16); err != nil || len(got) != 1<<16 {
			t.Errorf("%v: %d bytes, %v", codec, len(got), err)
		}
	}
}

func FuzzParquet(f *testing.F) {
	type plain struct {
		Text *string `parquet:"text,optional"`
	}
	type bare struct {
		Text string `parquet:"text"`
	}
	type dict struct {
		Text string `parquet:"text,dict"`
	}
	a, b := "some text", "some other text"
	for version := 1; version <= 2; version++ {
		for _, codec := range []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Zstd, &parquet.Lz4Raw} {
			o := []parquet.WriterOption{parquet.DataPageVersion(version), parquet.Compression(codec)}
			f.Add(writeParquet(f, []plain{{&a}, {nil}, {&b}, {&a}}, o...))
			f.Add(writeParquet(f, []bare{{a}, {b}, {a}}, append(o, deltaSchema)...))
			f.Add(writeParquet(f, []dict{{a}, {b}, {a}, {a}}, o...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// An error is as good as a text, so long as it is one.
		texts, err := parquetTexts(data, "text", 10000)
		if err != nil && err.Error() == "" {
			t.Fatalf("%d texts and an error without words", len(texts))
		}
	})
}

// Pages without the file around them: bytes that are levels, values or a dictionary reach the decoders at every length.
func FuzzParquetPage(f *testing.F) {
	f.Add([]byte("\x05\x00\x00\x00hello"), byte(0), byte(0))
	f.Add([]byte("\x02\x04\x00\x03\x03"), byte(8), byte(1))
	f.Add([]byte("\x80\x01\x04\x02\x0a\x00\x00\x00\x00\x00hellohello"), byte(6), byte(0))
	f.Add([]byte("\x80\x01\x04\x02\x00\x00\x00\x00\x00\x00\x80\x01\x04\x02\x0a\x00\x00\x00\x00\x00hellohello"), byte(7), byte(2))
	f.Fuzz(func(t *testing.T, data []byte, encoding, levels byte) {
		d, err := newDictionary([]byte("\x01\x00\x00\x00a\x02\x00\x00\x00bb"), parquetDictionaryHeader{Values: 2})
		if err != nil {
			t.Fatal(err)
		}
		page := dataPage{encoding: pq.Encoding(encoding), data: data, values: 1000}
		if levels %= 8; levels > 0 {
			n := min(int(levels), len(data))
			page.levels, page.data = newPresence(data[:n], int(levels)), data[n:]
		}
		values, err := page.decode(d)
		if err != nil {
			return
		}
		for n := page.values; n > 0; {
			present, run, err := page.levels.take(n)
			if err != nil {
				return
			}
			if run < 1 || run > n {
				t.Fatalf("a run of %d where %d values are left", run, n)
			}
			n -= run
			for range run {
				if !present {
					continue
				}
				if text, err := values.next(); err != nil {
					return
				} else if len(text) > len(data)*len(data)+2 {
					t.Fatalf("%d bytes of text from %d", len(text), len(data))
				}
			}
		}
	})
}
