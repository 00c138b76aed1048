package dataset

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/pkg/tokenizer"
)

func learnt(t *testing.T, c Config, o VocabularyOptions) (tok tokenizer.Tokenizer, anew bool) {
	t.Helper()
	o.Progress = func(tokenizer.TrainProgress) { anew = true }
	tok, err := Vocabulary(context.Background(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	return tok, anew
}

func TestVocabulary(t *testing.T) {
	files := map[string]string{"validation/v.txt": strings.Repeat("zebra ", 500)}
	for i := range 40 {
		files[fmt.Sprintf("%02d.txt", i)] = strings.Repeat(fmt.Sprintf("the sailors of harbour %d count ships\n", i), 50)
	}
	files["nul.bin"] = "a\x00b" // is left out
	c := DefaultConfig()
	c.Sources, c.CacheDir = []string{tree(t, files)}, t.TempDir()
	c.Validation = []string{filepath.Join(c.Sources[0], "validation")}
	o := VocabularyOptions{TrainOptions: tokenizer.TrainOptions{VocabSize: 300, Threads: 1}}
	tok, anew := learnt(t, c, o)
	if !anew || tok.VocabSize() != 300 || tok.Mask() < 0 {
		t.Fatalf("anew %v, %d tokens, [MASK] %d", anew, tok.VocabSize(), tok.Mask())
	}
	if n := len(tok.Encode([]byte(" sailors"), nil)); n != 1 {
		t.Errorf("a word of the training text is %d tokens", n)
	}
	if n := len(tok.Encode([]byte("zebra"), nil)); n != 5 {
		t.Errorf("a word that only held-out text has is %d tokens, and should be spelt", n)
	}
	o.Threads = 3
	if again, anew := learnt(t, c, o); anew || again.Fingerprint() != tok.Fingerprint() {
		t.Errorf("learnt anew %v, or another vocabulary", anew)
	}
	elsewhere := c
	elsewhere.CacheDir = t.TempDir()
	if other, anew := learnt(t, elsewhere, o); !anew || other.Fingerprint() != tok.Fingerprint() {
		t.Errorf("with three threads, anew %v: another vocabulary", anew)
	}
	// What killed processes left is removed; vocabularies and data stay.
	set, err := Prepare(context.Background(), c, tok, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if set.Index.Tokenizer != tok.Fingerprint() {
		t.Error("the data was made with another tokenizer")
	}
	if _, anew := learnt(t, c, o); anew {
		t.Error("preparing data has removed the vocabulary")
	}
	// Another size, and text that has changed.
	o.VocabSize = 280
	if other, anew := learnt(t, c, o); !anew || other.VocabSize() != 280 {
		t.Errorf("another size: anew %v, %d tokens", anew, other.VocabSize())
	}
	if err := os.WriteFile(filepath.Join(c.Sources[0], "00.txt"), []byte(strings.Repeat("quokka ", 5000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if other, anew := learnt(t, c, o); !anew || len(other.Encode([]byte("quokka "), nil)) != 2 {
		t.Errorf("changed text: anew %v", anew)
	}
}

// A part of the text is taken evenly from all files.
func TestTrainingTextsAreSpread(t *testing.T) {
	files := map[string]string{"big.jsonl": strings.Repeat(`{"text":"`+strings.Repeat("b", 79)+`"}`+"\n", 1000)}
	for i := range 100 {
		files[fmt.Sprintf("small/%03d.txt", i)] = strings.Repeat("s", 900)
	}
	list, _, err := listSources("data.sources", []string{tree(t, files)}, 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	for _, limit := range []int64{0, 18000, 1 << 30} {
		big, small := 0, 0
		for text, err := range trainingTexts(c, list, limit) {
			if err != nil {
				t.Fatal(err)
			}
			if text[0] == 'b' {
				big += len(text)
			} else {
				small += len(text)
			}
		}
		wantBig, wantSmall := 79000, 90000
		if limit == 18000 { // of 180,000 bytes
			wantBig, wantSmall = 9000, 9000
		}
		if max(big-wantBig, wantBig-big) > 900 || max(small-wantSmall, wantSmall-small) > 900 {
			t.Errorf("limit %d: %d bytes of the large file, %d of the small ones; want %d and %d", limit, big, small, wantBig, wantSmall)
		}
	}
}

func TestVocabularyErrors(t *testing.T) {
	c := DefaultConfig()
	c.CacheDir, c.ValidationFraction = t.TempDir(), 0
	o := VocabularyOptions{TrainOptions: tokenizer.TrainOptions{VocabSize: 300}}
	shards := prepared(t, map[string]string{"a": "text"})
	for want, source := range map[string]string{
		"set tokenizer.path to the tokenizer that they were made with": filepath.Join(shards.Dir, shards.Index.Train.Shards[0].Name),
		"is not UTF-8 text": filepath.Join(tree(t, map[string]string{"latin.txt": "\xe4"}), "latin.txt"),
	} {
		c.Sources = []string{source}
		if _, err := Vocabulary(context.Background(), c, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
	c.Sources = []string{tree(t, map[string]string{"a": "some text"})}
	tok, _ := learnt(t, c, o)
	dirs, err := filepath.Glob(filepath.Join(c.CacheDir, vocabularyPrefix+"*"))
	if err != nil || len(dirs) != 1 || tok == nil {
		t.Fatal(dirs, err)
	}
	if err := os.WriteFile(filepath.Join(dirs[0], tokenizer.File), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Vocabulary(context.Background(), c, o); err == nil || !strings.Contains(err.Error(), "delete the folder "+dirs[0]) {
		t.Errorf("a damaged vocabulary: %v", err)
	}
	entries, err := os.ReadDir(c.CacheDir)
	if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), tmpPrefix) }) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
