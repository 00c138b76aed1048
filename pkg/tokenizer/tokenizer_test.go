package tokenizer

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var save = flag.String("save", "", "folder that TestSaveAndLoad also saves the byte-level tokenizer to, for scripts/peer/byte_tokenizer.py")

func TestByteLevelIds(t *testing.T) {
	tok, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode([]byte("a\x00é</s>"), []int32{7}); !slices.Equal(got, []int32{7, 97, 0, 0xC3, 0xA9, '<', '/', 's', '>'}) {
		t.Errorf("ids %v", got)
	}
	if tok.BOS() != 256 || tok.EOS() != 257 || tok.Mask() != 258 || tok.VocabSize() != 259 || !slices.Equal(tok.Special(), []int32{256, 257, 258}) {
		t.Errorf("special ids %d %d %d %v of %d", tok.BOS(), tok.EOS(), tok.Mask(), tok.Special(), tok.VocabSize())
	}
	if got := string(tok.Decode([]int32{256, 'h', 258, 257, 259, -1})); got != "<s>h[MASK]</s>\uFFFD\uFFFD" {
		t.Errorf("decoded %q", got)
	}
	if len(tok.Fingerprint()) != 64 {
		t.Errorf("fingerprint %q", tok.Fingerprint())
	}
}

func FuzzByteLevelRoundTrip(f *testing.F) {
	f.Add([]byte("Mask [MASK] </s> \xff\x00 日本語 👩‍👩‍👧"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ids := ByteLevel{}.Encode(text, nil)
		if len(ids) != len(text) || !bytes.Equal(ByteLevel{}.Decode(ids), text) {
			t.Errorf("%q became %v", text, ids)
		}
	})
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second time over what is there
		if err := (ByteLevel{}).Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, File), Bytes} {
		tok, err := Load(path)
		if err != nil || tok.Fingerprint() != (ByteLevel{}).Fingerprint() {
			t.Errorf("%s: %v, %v", path, tok, err)
		}
	}
	if *save != "" {
		if err := (ByteLevel{}).Save(*save); err != nil {
			t.Fatal(err)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if err := (ByteLevel{}).Save(filepath.Join(dir, "absent")); err == nil {
		t.Error("saved into a folder that is not there")
	}
}

func TestLoadRefusesOtherTokenizers(t *testing.T) {
	write := func(name string, change func(*definition)) string {
		d := byteDefinition()
		change(&d)
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, File), data, 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	empty, broken := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, File), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		empty,
		broken,
		filepath.Join(empty, "absent.json"),
		write("merges", func(d *definition) { d.Model.Merges = []mergePair{{"a", "b"}} }),
	} {
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), `"bytes"`) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// testdata/huggingface.json holds ids by the Python package tokenizers,
// written by scripts/peer/byte_tokenizer.py for what Save writes.
func TestHuggingFaceReadsWhatSaveWrites(t *testing.T) {
	data, err := os.ReadFile("testdata/huggingface.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Tokenizer json.RawMessage
		Texts     []struct {
			Text string
			IDs  []int32
		}
		Special map[string]int32
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := (ByteLevel{}).Save(dir); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	var ours, proved any
	if err := json.Unmarshal(saved, &ours); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(golden.Tokenizer, &proved); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ours, proved) {
		t.Error("Save writes another tokenizer.json than the one that was proved; run scripts/peer/byte_tokenizer.py again")
	}
	if len(golden.Texts) < 10 {
		t.Errorf("only %d texts", len(golden.Texts))
	}
	for _, g := range golden.Texts {
		if ids := (ByteLevel{}).Encode([]byte(g.Text), nil); !slices.Equal(ids, g.IDs) {
			t.Errorf("%q: ids %v, Hugging Face %v", g.Text, ids, g.IDs)
		}
	}
	for s, id := range golden.Special {
		if got := string(ByteLevel{}.Decode([]int32{id})); got != s {
			t.Errorf("id %d is %q, Hugging Face has %q", id, got, s)
		}
	}
}
