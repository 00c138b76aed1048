package tokenizer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// each yields texts in memory that the next one overwrites.
func each(texts ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var buf []byte
		for _, s := range texts {
			buf = append(buf[:0], s...)
			if !yield(buf, nil) {
				return
			}
		}
	}
}

func learn(t testing.TB, o TrainOptions, texts ...string) *BPE {
	t.Helper()
	tok, err := Train(t.Context(), each(texts...), o)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func merges(t testing.TB, tok *BPE) []mergePair {
	t.Helper()
	var d definition
	if err := json.Unmarshal(tok.file, &d); err != nil {
		t.Fatal(err)
	}
	return d.Model.Merges
}

func TestTrainByHand(t *testing.T) {
	// Words: "ab" 3 times, " ab" 2, "abc" 2, " bc" 1. Pairs: ab 7, then (ab, c)
	// and (" ", ab) 2 each, of which the one that begins with a blank comes
	// second, because a blank's character is Ġ. (b, c) is 2 - 2 + 1 = 1.
	tok := learn(t, TrainOptions{VocabSize: 400}, "ab", "ab ab", "ab ab", "abc", "abc bc")
	want := []mergePair{{"a", "b"}, {"Ġ", "ab"}, {"ab", "c"}}
	got := merges(t, tok)
	slices.SortFunc(got[1:], func(a, b mergePair) int { return strings.Compare(b[0], a[0]) })
	if !slices.Equal(got, want) {
		t.Errorf("merges %v, want %v", got, want)
	}
	if tok.VocabSize() != 262 || tok.BOS() != 256 || tok.EOS() != 257 || tok.Mask() != 258 || !slices.Equal(tok.Special(), []int32{256, 257, 258}) {
		t.Errorf("%d %d %d %d %v", tok.VocabSize(), tok.BOS(), tok.EOS(), tok.Mask(), tok.Special())
	}
	if ids := tok.Encode([]byte("ab[MASK]\xffb"), nil); !slices.Equal(ids, []int32{259, 258, 0xFF, 'b'}) {
		t.Errorf("ids %v", ids)
	}
}

// testdata/hf/train.json holds the merges that Hugging Face's BpeTrainer learns.
func TestTrainLearnsWhatHuggingFaceLearns(t *testing.T) {
	var g struct {
		Corpus    []string
		VocabSize int `json:"vocab_size"`
		Merges    []mergePair
	}
	readGolden(t, "testdata/hf/train.json", &g)
	if len(g.Merges) < 400 {
		t.Fatalf("only %d merges", len(g.Merges))
	}
	tok := learn(t, TrainOptions{VocabSize: g.VocabSize, MinFrequency: 1}, g.Corpus...)
	got := merges(t, tok)
	for i := range g.Merges {
		if i >= len(got) || got[i] != g.Merges[i] {
			t.Fatalf("merge %d: %q, Hugging Face %q", i, got[min(i, len(got)-1)], g.Merges[i])
		}
	}
	if len(got) != len(g.Merges) || tok.VocabSize() != g.VocabSize {
		t.Errorf("%d merges and %d tokens, Hugging Face %d and %d", len(got), tok.VocabSize(), len(g.Merges), g.VocabSize)
	}
}

func randomText(r *rand.Rand, words int) string {
	var b strings.Builder
	for range words {
		for range 1 + r.IntN(6) {
			b.WriteByte("aabbcde"[r.IntN(7)])
		}
		b.WriteByte(" \n"[r.IntN(2)])
	}
	return b.String()
}

// The counts of pairs that are kept up to date are those that counting anew
// would give.
func TestTrainCountsPairs(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 11))
		counts := map[string]int64{}
		for range 60 {
			counts[strings.TrimSpace(randomText(r, 1))] += int64(1 + r.IntN(5))
		}
		l := newLearner(counts)
		for l.mergeBest(2) {
			want := map[pair]int64{}
			for _, w := range l.words {
				for i := 1; i < len(w.tokens); i++ {
					want[pair{w.tokens[i-1], w.tokens[i]}] += w.count
				}
			}
			for p, c := range l.pairs {
				if c.count != want[p] {
					t.Fatalf("seed %d, after %d merges: %v occurs %d times, counted %d", seed, len(l.merges), p, want[p], c.count)
				}
			}
			for p, n := range want {
				if c := l.pairs[p]; c == nil || c.count != n {
					t.Fatalf("seed %d, after %d merges: %v occurs %d times and is not counted", seed, len(l.merges), p, n)
				}
			}
		}
	}
}

func TestTrainIsTheSameForAnyThreads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 12))
	texts := []string{randomText(r, 3000), "", randomText(r, 20), strings.Repeat(randomText(r, 3000), 180)} // the last is cut into chunks
	if len(texts[3]) < 2*chunkBytes {
		t.Fatalf("only %d bytes", len(texts[3]))
	}
	var want *BPE
	for _, threads := range []int{1, 2, 5} {
		var last TrainProgress
		tok := learn(t, TrainOptions{VocabSize: 350, Threads: threads, Progress: func(p TrainProgress) { last = p }}, texts...)
		if want == nil {
			want = tok
		}
		if !bytes.Equal(tok.file, want.file) || tok.Fingerprint() != want.Fingerprint() {
			t.Errorf("%d threads learn another vocabulary", threads)
		}
		if size := int64(len(texts[0]) + len(texts[2]) + len(texts[3])); last.Bytes != size || last.Merges != 350-MinVocabSize {
			t.Errorf("progress ends with %+v, the texts have %d bytes", last, size)
		}
	}
}

func TestChunksEndWhereWordsDo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 13))
	var text []byte
	for len(text) < 2*chunkBytes+chunkBytes/2 {
		text = append(text, []string{"word", " ", "\n", "\r\n", "  ", ".", "\n\n", "é", "\u00a0", "12", "'s", "\t"}[r.IntN(12)]...)
	}
	whole, parts, chunks := map[string]*int64{}, map[string]*int64{}, 0
	count(text, whole)
	for rest := text; len(rest) > 0; chunks++ {
		n := cutChunk(rest)
		count(rest[:n], parts)
		rest = rest[n:]
	}
	if chunks < 3 || !reflect.DeepEqual(whole, parts) {
		t.Errorf("%d chunks have %d different words, the text has %d", chunks, len(parts), len(whole))
	}
}

func TestTrainNeverLearnsASpecialToken(t *testing.T) {
	tok := learn(t, TrainOptions{VocabSize: 300}, strings.Repeat("<s> </s> [MASK]\n", 50))
	for _, p := range merges(t, tok) {
		if s := p[0] + p[1]; s == BOSToken || s == EOSToken || s == MaskToken {
			t.Errorf("learnt %q", s)
		}
	}
	if got := tok.Encode([]byte("<s>[MASK]"), nil); !slices.Equal(got, []int32{256, 258}) {
		t.Errorf("ids %v", got)
	}
}

func TestTrainedTokenizerIsSavedWithItsConfiguration(t *testing.T) {
	tok := learn(t, TrainOptions{VocabSize: 300}, goldenTexts(t)...)
	dir := t.TempDir()
	if err := tok.Save(dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir)
	if err != nil || loaded.Fingerprint() != tok.Fingerprint() || loaded.Mask() != 258 {
		t.Fatalf("%v, %v", loaded, err)
	}
	for _, text := range goldenTexts(t) {
		if got := string(loaded.Decode(loaded.Encode([]byte(text), nil))); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ConfigFile)); err != nil {
		t.Error(err)
	}
	if err := tok.Save(filepath.Join(dir, "absent")); err == nil {
		t.Error("saved into a folder that is not there")
	}
}

func TestTrainErrors(t *testing.T) {
	broken := errors.New("a broken text")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		texts iter.Seq2[[]byte, error]
		size  int
		want  string
	}{
		"small":     {t.Context(), each("a"), 258, "between 259"},
		"large":     {t.Context(), each("a"), maxID + 1, "between 259"},
		"empty":     {t.Context(), each("", ""), 300, "no text"},
		"broken":    {t.Context(), func(yield func([]byte, error) bool) { _ = yield([]byte("a"), nil) && yield(nil, broken) }, 300, broken.Error()},
		"cancelled": {cancelled, each("a b a b"), 300, "canceled"},
	} {
		if _, err := Train(c.ctx, c.texts, TrainOptions{VocabSize: c.size}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkTrain(b *testing.B) {
	text := string(prose(b, 1<<20))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		learn(b, TrainOptions{VocabSize: 8192}, text)
	}
}
