package dataset

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The bytes are written out from the format's description, so that reader and
// writer cannot be wrong together.
func TestShardBytes(t *testing.T) {
	header16 := "LITPKDS" + "\x01\x00\x00\x00\x00\x00\x00\x00" + "\x08" + "\x03\x00\x00\x00\x00\x00\x00\x00"
	header32 := "LITPKDS" + "\x01\x00\x00\x00\x00\x00\x00\x00" + "\x04" + "\x03\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		vocab int
		ids   []int32
		files []string
	}{
		{259, []int32{256, 1, 2, 257, 255}, []string{
			header16 + "\x00\x01\x01\x00\x02\x00",
			header16 + "\x01\x01\xff\x00\x01\x01", // filled up with the separator
		}},
		{65499, []int32{65498, 1, 0}, []string{header16 + "\xda\xff\x01\x00\x00\x00"}},
		{65500, []int32{65499, 1, 0, 2}, []string{
			header32 + "\xdb\xff\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
			header32 + "\x02\x00\x00\x00\x01\x01\x00\x00\x01\x01\x00\x00",
		}},
	} {
		dir := t.TempDir()
		w := newShardWriter(dir, Train, c.vocab, 257, 3)
		for _, id := range c.ids { // one at a time and all at once make the same
			if err := w.add([]int32{id}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if w.tokens != int64(len(c.ids)) || len(w.files) != len(c.files) {
			t.Fatalf("vocab %d: %d tokens in %d files", c.vocab, w.tokens, len(w.files))
		}
		for i, want := range c.files {
			got, err := os.ReadFile(filepath.Join(dir, w.files[i].Name))
			if err != nil || string(got) != want {
				t.Errorf("vocab %d file %d: %q, %v, want %q", c.vocab, i, got, err, want)
			}
		}
		other := newShardWriter(t.TempDir(), Train, c.vocab, 257, 3)
		if err := other.add(c.ids); err != nil {
			t.Fatal(err)
		}
		if err := other.close(); err != nil || !slices.Equal(other.files, w.files) {
			t.Errorf("vocab %d: %v, %v, want %v", c.vocab, other.files, err, w.files)
		}
	}
}

func TestASmallSplitMakesASmallFile(t *testing.T) {
	dir := t.TempDir()
	w := newShardWriter(dir, Train, 259, 257, chunkTokens)
	if err := w.add([]int32{256, 'a', 257}); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "train_0000000000.bin"))
	if err != nil || len(data) != headerSize+2*1024 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	h, tokens, err := parseShard(data)
	if err != nil || h != (shardHeader{dtypeUint16, 1024}) || w.files[0].Tokens != 3 {
		t.Errorf("%+v, %v, %v", h, w.files, err)
	}
	ids := make([]int32, 1021)
	decodeTokens(h.dtype, tokens, 3, ids)
	if slices.ContainsFunc(ids, func(id int32) bool { return id != 257 }) {
		t.Errorf("not filled up with the separator: %v", ids[:5])
	}
}

// goodShard is a shard of three tokens.
func goodShard() []byte {
	return append(shardHeader{dtypeUint16, 3}.bytes(), 0, 1, 2, 0, 1, 1)
}

func TestParseShardRefuses(t *testing.T) {
	if _, _, err := parseShard(goodShard()); err != nil {
		t.Fatal(err)
	}
	for word, change := range map[string]func([]byte) []byte{
		"less than a header": func(b []byte) []byte { return b[:headerSize-1] },
		"no LITPKDS file":    func(b []byte) []byte { b[0] = 'X'; return b },
		"version 2":          func(b []byte) []byte { b[7] = 2; return b },
		"dtype code is 5":    func(b []byte) []byte { b[15] = 5; return b },
		"truncated":          func(b []byte) []byte { return b[:len(b)-1] },
		"bytes follow":       func(b []byte) []byte { return append(b, 0) },
		"asks for 184467440": func(b []byte) []byte {
			for i := 16; i < 24; i++ {
				b[i] = 0xff
			}
			return b
		},
	} {
		if _, _, err := parseShard(change(goodShard())); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %q", err, word)
		}
	}
}

func FuzzParseShard(f *testing.F) {
	f.Add(goodShard())
	f.Add(append(shardHeader{dtypeInt32, 1}.bytes(), 0, 1, 2, 3))
	f.Add([]byte(shardMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, tokens, err := parseShard(data)
		if err != nil {
			return
		}
		if h.chunk*int64(h.dtype.size()) != int64(len(tokens)) || len(tokens)+headerSize != len(data) {
			t.Fatalf("%+v of %d bytes", h, len(data))
		}
		decodeTokens(h.dtype, tokens, 0, make([]int32, h.chunk))
		if string(h.bytes()) != string(data[:headerSize]) {
			t.Fatalf("%+v is written as %q, read from %q", h, h.bytes(), data[:headerSize])
		}
	})
}

func goodIndex() *Index {
	return &Index{
		Version: 1, Tokenizer: "t", Vocab: 259, BOS: 256, EOS: 257, Source: "s",
		Train: SplitInfo{
			Shards: []ShardInfo{{Name: "train_0000000000.bin", Tokens: 5, SHA256: "x"}, {Name: "train_0000000001.bin", Tokens: 2, SHA256: "y"}},
			Tokens: 7, Bytes: 5, Documents: 1, Files: 1,
		},
		Validation: &SplitInfo{Shards: []ShardInfo{{Name: "v.bin", Tokens: 3}}, Tokens: 3, Bytes: 1, Documents: 1, Files: 1},
	}
}

func TestParseIndexRefuses(t *testing.T) {
	for word, change := range map[string]func(*Index){
		"":                       func(*Index) {},
		"version 2":              func(x *Index) { x.Version = 2 },
		"do not go together":     func(x *Index) { x.EOS = 259 },
		"vocab 0":                func(x *Index) { x.Vocab = 0 },
		"names no shards":        func(x *Index) { x.Train.Shards = nil },
		`"../a"`:                 func(x *Index) { x.Train.Shards[0].Name = "../a" },
		`".."`:                   func(x *Index) { x.Train.Shards[0].Name = ".." },
		"cannot hold -1":         func(x *Index) { x.Train.Shards[0].Tokens = -1 },
		"cannot hold 9223372036": func(x *Index) { x.Train.Shards[1].Tokens = 1<<63 - 1 },
		"hold 7 tokens, not 8":   func(x *Index) { x.Train.Tokens = 8 },
		"train: 0 bytes":         func(x *Index) { x.Train.Bytes = 0 },
		"validation: 1 bytes":    func(x *Index) { x.Validation.Documents = 4 },
	} {
		x := goodIndex()
		change(x)
		data, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parseIndex(data)
		if word == "" && err != nil || word != "" && (err == nil || !strings.Contains(err.Error(), word)) {
			t.Errorf("%v, want %q", err, word)
		}
	}
	if _, err := parseIndex([]byte("{")); err == nil {
		t.Error("took half an object")
	}
}

func FuzzParseIndex(f *testing.F) {
	data, err := json.Marshal(goodIndex())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"train":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			return
		}
		// What was accepted is written and read as the same.
		again, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		y, err := parseIndex(again)
		if err != nil || y.Fingerprint() != x.Fingerprint() {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func TestFingerprintIsOfTheData(t *testing.T) {
	want := goodIndex().Fingerprint()
	for name, c := range map[string]struct {
		change func(*Index)
		same   bool
	}{
		"where it came from": {func(x *Index) { x.Source = "other" }, true},
		"a shard":            {func(x *Index) { x.Train.Shards[1].SHA256 = "z" }, false},
		"tokenizer":          {func(x *Index) { x.Tokenizer = "u" }, false},
		"validation":         {func(x *Index) { x.Validation = nil }, false},
	} {
		x := goodIndex()
		c.change(x)
		if (x.Fingerprint() == want) != c.same {
			t.Errorf("%s changed: same fingerprint is %v, want %v", name, !c.same, c.same)
		}
	}
}
