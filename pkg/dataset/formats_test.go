package dataset

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func gzipOf(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstdOf(t testing.TB, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(w.EncodeAll([]byte(text), nil))
}

// testReading reads the field "text" with the byte-level vocabulary.
var testReading = reading{field: "text", maxBytes: 1000, fraction: 0.25, ids: ids{vocab: 259, bos: 256, eos: 257}}

// readAll returns the texts of a file, tokens as one text.
func readAll(o reading, path string, p part) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	texts := []string{}
	for r, err := range o.records(sourceFile{Name: filepath.Base(path), Path: path, Size: info.Size(), Part: p}) {
		if err != nil {
			return texts, err
		}
		if r.ids != nil {
			texts = append(texts, fmt.Sprint(r.ids))
		} else {
			texts = append(texts, string(r.text))
		}
	}
	return texts, nil
}

func TestFormats(t *testing.T) {
	type row struct {
		Text string `parquet:"text"`
	}
	const lines = "\xef\xbb\xbf" + `{"text": "one\n", "id": 1}` + "\r\n\n  \n" + `{"id": 2, "text": "zw\u00f6lf \ud83d\ude00"}` + "\n" +
		`{"text": null}` + "\n" + `{"text": ""}` + "\n" + `{"text": "last"}`
	records := []string{"one\n", "zwölf 😀", "", "", "last"}
	packed := string(shardHeader{dtypeUint16, 4}.bytes()) + "\x00\x01a\x00\x01\x01\x01\x01"
	for name, c := range map[string]struct {
		content string
		want    []string
	}{
		"a.txt":        {"some\ntext", []string{"some\ntext"}},
		"a.txt.gz":     {gzipOf(t, "some\n") + gzipOf(t, "text"), []string{"some\ntext"}}, // two members
		"a.go.ZST":     {zstdOf(t, "some\n") + zstdOf(t, "text"), []string{"some\ntext"}},
		"a.jsonl":      {lines, records},
		"a.NDJSON":     {lines, records},
		"a.jsonl.gz":   {gzipOf(t, lines), records},
		"a.jsonl.zst":  {zstdOf(t, lines), records},
		"a.json.gz":    {gzipOf(t, lines), records}, // as C4 has it
		"b.json":       {"{\n \"text\": \"one\"\n}", []string{"{\n \"text\": \"one\"\n}"}},
		"c.json":       {`{"id": 1}`, []string{`{"id": 1}`}},
		"README":       {"some text", []string{"some text"}},
		"nothing":      {"\n", []string{"\n"}},
		"t.parquet":    {string(writeParquet(t, []row{{"one"}, {""}, {"three"}})), []string{"one", "", "three"}},
		"a.bin":        {packed, []string{"[256 97 257]"}},
		"blank.jsonl":  {"\n\n", []string{}},
		"quoted.jsonl": {`{"text":"a","text":"b"}`, []string{"b"}}, // the last of equal names
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(testReading, path, whole)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestFormatErrors(t *testing.T) {
	text := gzipOf(t, strings.Repeat("some text ", 50))
	for _, c := range []struct{ name, content, place, word string }{
		{"a.jsonl", "{\"text\":\"a\"}\n\n{\"text\":\"b\"\n", ":3: ", "no JSON object"},
		{"a.jsonl", "null", ":1: ", "no JSON object"},
		{"a.jsonl", "[1]", ":1: ", "no JSON object"},
		{"a.jsonl", `{"text":"a"} {"text":"b"}`, ":1: ", "no JSON object"},
		{"a.jsonl", `{"txt":"a","b":1}`, ":1: ", `no field "text", its fields are ["b" "txt"]; set data.text_field`},
		{"a.jsonl", `{"text":["a"]}`, ":1: ", `holds no string but ["a"]; set data.text_field`},
		{"a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\xff\"}", ":2: ", "not UTF-8"},
		{"a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"" + strings.Repeat("x", 100000) + "\"}", ":2: ", "more than data.max_file_bytes = 1000 bytes"},
		{"a.jsonl.gz", gzipOf(t, "{\"text\":\"a\"}\n{\"te")[:30], ":2: ", "truncated"},
		{"a.txt.gz", text[:20], ": ", "truncated"},
		{"a.txt.gz", "this is no gzip file", ": ", "damaged"},
		{"a.txt.zst", "this is no zstd file", ": ", "damaged"},
		{"a.txt.gz", gzipOf(t, strings.Repeat("x", 1001)), ": ", "larger than data.max_file_bytes"},
		{"a.txt.gz", gzipOf(t, "a\x00"), ": ", "not UTF-8 text"},
		{"a.jsonl.zst", "\x28\xb5\x2f\xfd\x00\x90\x09\x00\x00x", ":1: ", "--long=27"},
		{"a.parquet", "PAR1 and more", ": ", "no Parquet file"},
		{"a.bin", string(goodShard()[:27]), ": ", "truncated"},
		{"a.bin", string(shardHeader{dtypeUint16, 2}.bytes()) + "\x00\x01\x03\x01", ": ", "token 1 has id 259, beyond the tokenizer's 259"},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		texts, err := readAll(testReading, path, whole)
		if err == nil || !strings.HasPrefix(err.Error(), "reading "+path+c.place) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s %.30q: %q, %v, want %q", c.name, c.content, texts, err, c.word)
		}
	}
}

func TestTextOf(t *testing.T) {
	const object = `{"a": {"b": {"c": "nested"}, "n": null}, "a.b": "dotted", "x": "plain"}`
	for field, want := range map[string]string{
		"x": "plain", "a.b": "dotted", "a.b.c": "nested", "a.n": "",
		"a": "!", "a.x": "!", "x.y": "!", "a.n.z": "!", "": "!", ".": "!", "a.": "!", "y": "!",
	} {
		got, err := textOf([]byte(object), field)
		if (err != nil) != (want == "!") || err == nil && string(got) != want {
			t.Errorf("%s: %q, %v", field, got, err)
		}
	}
}

// Every record of a single file is in one part, and neither is empty.
func TestRecordsAreHeldOut(t *testing.T) {
	for _, n := range []int{2, 3, 10, 1000} {
		for _, fraction := range []float64{0.001, 0.02, 0.25, 1. / 3, 0.5} {
			held := 0
			for i := range int64(n) {
				if head.has(i, fraction) == tail.has(i, fraction) || !whole.has(i, fraction) {
					t.Fatalf("record %d of %d at %v", i, n, fraction)
				}
				if tail.has(i, fraction) {
					held++
				}
			}
			if want := fraction * float64(n); held == 0 || held == n || float64(held) > want+1 || float64(held) < want-1 {
				t.Errorf("%d of %d held out at %v", held, n, fraction)
			}
		}
	}
	path := filepath.Join(tree(t, map[string]string{"a.jsonl": strings.Repeat(`{"text":"x"}`+"\n", 9)}), "a.jsonl")
	a, err := readAll(testReading, path, head)
	b, err2 := readAll(testReading, path, tail)
	if err != nil || err2 != nil || len(a) != 7 || len(b) != 2 {
		t.Errorf("%d and %d of 9, %v, %v", len(a), len(b), err, err2)
	}
}

// packedTokens writes a LITPKDS file, as the reference would, and reads it as a source.
func packedTokens(t *testing.T, d dtype, tokens []int32, want ids) (got []int32, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chunk_0000000000.bin")
	data := appendTokens(shardHeader{d, int64(len(tokens))}.bytes(), d, tokens)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	o := testReading
	o.ids = want
	err = o.readPacked(sourceFile{Name: "chunk.bin", Path: path}, func(r record) bool {
		got = append(got, r.ids...)
		return true
	})
	return got, err
}

func TestPackedSource(t *testing.T) {
	llama := ids{vocab: 32001, bos: 1, eos: 2}
	for _, c := range []struct{ in, want []int32 }{
		{[]int32{1, 9, 2, 1, 8, 2}, []int32{1, 9, 2, 1, 8, 2}},
		{[]int32{1, 9, 2, 1, 1, 1}, []int32{1, 9, 2}},                              // filled up with BOS, as the reference does
		{[]int32{1, 9, 2, 2, 2, 2}, []int32{1, 9, 2}},                              // with EOS: the first ends the document
		{[]int32{1, 9, 2, 1, 8, 7}, []int32{1, 9, 2, 1, 8, 7}},                     // goes on in the next file
		{[]int32{1, 9, 2, 1}, []int32{1, 9, 2, 1}},                                 // begins a document of the next file
		{[]int32{1, 1}, nil},                                                       // filler only
		{[]int32{7, 7, 7}, []int32{7, 7, 7}},                                       // text
		{[]int32{1, 32000, 2, 1, 1, 1}, []int32{1, 32000, 2}},                      // the largest id
		{append(make([]int32, packedRun), 5), append(make([]int32, packedRun), 5)}, // more than one run
	} {
		for _, d := range []dtype{dtypeUint16, dtypeInt32} {
			if got, err := packedTokens(t, d, c.in, llama); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v of %d tokens: %d tokens, %v", d, len(c.in), len(got), err)
			}
		}
	}
	if _, err := packedTokens(t, dtypeInt32, []int32{1, -1, 2}, llama); err == nil || !strings.Contains(err.Error(), "token 1 has id -1") {
		t.Errorf("%v", err)
	}
	if _, err := packedTokens(t, dtypeUint16, []int32{1, 5, 2}, ids{vocab: 65500, bos: 1, eos: 2}); err == nil || !strings.Contains(err.Error(), "another tokenizer") {
		t.Errorf("%v", err)
	}
}

func TestPackedParts(t *testing.T) {
	p := packedFile{shard: shard{dtype: dtypeUint16}}
	for _, c := range []struct {
		tokens []int32
		cut    int64
	}{
		{[]int32{1, 5, 2, 1, 5, 2, 1, 5, 2, 1, 5, 2}, 9}, // a quarter is 3
		{[]int32{1, 5, 2, 1, 5, 2, 1, 5, 5, 5, 5, 2}, 9}, // 6 would hold out a half
		{[]int32{1, 5, 2, 1, 5, 5, 2, 1, 5, 5, 5, 2}, 7},
		{[]int32{5, 5, 5, 5}, 3},
	} {
		p.data, p.tokens = appendTokens(nil, dtypeUint16, c.tokens), int64(len(c.tokens))
		_, a := p.of(head, 0.25, 2)
		b, end := p.of(tail, 0.25, 2)
		if a != c.cut || b != c.cut || end != p.tokens {
			t.Errorf("%v: cut at %d and %d, want %d", c.tokens, a, b, c.cut)
		}
	}
}

// What meap has packed is a source like the text that it was packed from, whose index is no text.
func TestOwnShardsAreSources(t *testing.T) {
	set := prepared(t, map[string]string{"a.txt": "first", "b.txt": "second\n"})
	c := DefaultConfig()
	c.Sources, c.ValidationFraction, c.CacheDir = []string{set.Dir}, 0, t.TempDir()
	again, err := Prepare(context.Background(), c, bytesTok, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := everything(t, stream(t, again, Train)), everything(t, stream(t, set, Train)); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if a, b := again.Index.Train, set.Index.Train; a.Bytes != b.Bytes || a.Documents != b.Documents || a.Files != 1 {
		t.Errorf("%+v, want %+v", a, b)
	}
}

func TestStdin(t *testing.T) {
	type row struct {
		Text string `parquet:"text"`
	}
	records := `{"text":"a"}` + "\n" + `{"text":"b"}` + "\n"
	ab := []int32{256, 'a', 257, 256, 'b', 257}
	cache := t.TempDir()
	for name, c := range map[string]struct {
		in   string
		want []int32
	}{
		"text":    {"ab", []int32{256, 'a', 'b', 257}},
		"JSON":    {"{\"a\":1}", append(append([]int32{256}, '{', '"', 'a', '"', ':', '1', '}'), 257)},
		"JSONL":   {records, ab},
		"gzip":    {gzipOf(t, records), ab},
		"zstd":    {zstdOf(t, records), ab},
		"Parquet": {string(writeParquet(t, []row{{"a"}, {"b"}})), ab},
		"LITPKDS": {string(appendTokens(shardHeader{dtypeInt32, 6}.bytes(), dtypeInt32, ab)), ab},
	} {
		cfg := DefaultConfig()
		cfg.Sources, cfg.ValidationFraction, cfg.CacheDir = []string{"-"}, 0, cache
		for _, built := range []bool{true, false} { // the same text is not prepared twice
			set, err := Prepare(context.Background(), cfg, bytesTok, Options{Stdin: strings.NewReader(c.in)})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := everything(t, stream(t, set, Train)); !slices.Equal(got, c.want) || set.Built != built {
				t.Errorf("%s: %v, built %v, want %v", name, got, set.Built, c.want)
			}
		}
	}
	for _, name := range leftovers(t, cache) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("left %s", name)
		}
	}
	cfg := DefaultConfig()
	cfg.Sources, cfg.Validation, cfg.CacheDir = []string{"-"}, []string{"-"}, cache
	if _, err := Prepare(context.Background(), cfg, bytesTok, Options{Stdin: strings.NewReader("a")}); err == nil || !strings.Contains(err.Error(), "read once") {
		t.Errorf("%v", err)
	}
	cfg.Validation = nil
	if _, err := Prepare(context.Background(), cfg, bytesTok, Options{Stdin: strings.NewReader("")}); err == nil || !strings.Contains(err.Error(), "standard input: the file is empty") {
		t.Errorf("%v", err)
	}
}

func TestInspectShard(t *testing.T) {
	set := prepared(t, map[string]string{"a.txt": "first", "b.txt": "second\n"})
	path := filepath.Join(set.Dir, "train_0000000000.bin")
	r, err := InspectShard(path, bytesTok, 10)
	if err != nil {
		t.Fatal(err)
	}
	if r.DType != "uint16" || r.Chunk != 1024 || r.Tokens != 16 || r.Filler != 1008 || !r.FillerKnown || r.Documents != 2 || r.Beyond != 0 ||
		r.Smallest != '\n' || r.Largest != 257 || len(r.Segments) != 2 || r.Segments[1].Text != "<s>se" || r.Segments[1].Start != 7 {
		t.Errorf("%+v", r)
	}
	foreign := filepath.Join(t.TempDir(), "x.bin")
	data := appendTokens(shardHeader{dtypeInt32, 6}.bytes(), dtypeInt32, []int32{256, 300, 257, 256, 256, 256})
	if err := os.WriteFile(foreign, data, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err = InspectShard(foreign, bytesTok, 10)
	if err != nil || r.Tokens != 3 || r.Filler != 3 || r.FillerKnown || r.Beyond != 1 || !strings.Contains(r.String(), "1 ids are beyond") {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = InspectShard(foreign, nil, 2)
	if err != nil || r.Tokens != 3 || r.Largest != 300 || len(r.Segments) != 1 || !slices.Equal(r.Segments[0].IDs, []int32{256, 300}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := InspectShard(filepath.Join(set.Dir, IndexFile), nil, 2); err == nil || !strings.Contains(err.Error(), "no LITPKDS file") {
		t.Errorf("%v", err)
	}
}

func FuzzJSONL(f *testing.F) {
	f.Add([]byte("{\"text\": \"a\"}\n{\"a\": {\"text\": null}}\n"), "text")
	f.Add([]byte("\xef\xbb\xbf{\"a\": {\"b\": \"c\"}}\r\n"), "a.b")
	f.Add([]byte(gzipOf(f, `{"text": "a"}`)), "text")
	f.Add([]byte(zstdOf(f, `{"text": "a"}`)), "text")
	f.Fuzz(func(t *testing.T, data []byte, field string) {
		for _, name := range []string{"a.jsonl", "a.jsonl.gz", "a.json.zst"} {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			o := testReading
			o.field = field
			texts, err := readAll(o, path, whole)
			if err != nil && !strings.HasPrefix(err.Error(), "reading "+path) {
				t.Fatalf("%v", err)
			}
			for _, text := range texts {
				if int64(len(text)) > 3*o.maxBytes { // a byte may become U+FFFD
					t.Fatalf("a text of %d bytes", len(text))
				}
			}
		}
	})
}

func FuzzPackedSource(f *testing.F) {
	f.Add(goodShard())
	f.Add(appendTokens(shardHeader{dtypeInt32, 6}.bytes(), dtypeInt32, []int32{256, 1, 257, 256, 256, 256}))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "a.bin")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		tokens := [3]int64{}
		for _, part := range []part{whole, head, tail} {
			err := testReading.readPacked(sourceFile{Name: "a.bin", Path: path, Part: part}, func(r record) bool {
				tokens[part] += int64(len(r.ids))
				return true
			})
			if err != nil {
				return
			}
		}
		if tokens[head]+tokens[tail] != tokens[whole] || tokens[whole]*2 > int64(len(data)) {
			t.Fatalf("%v tokens from %d bytes", tokens, len(data))
		}
		if _, err := InspectShard(path, bytesTok, 100); err != nil && tokens[whole] > 0 {
			t.Fatal(err)
		}
	})
}
