package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	smallText = 100 << 10
	largeText = 10 << 20
)

// sharedText returns the content of a file below ../shared/data, without
// compression.
func sharedText(b testing.TB, path ...string) []byte {
	name := filepath.Join(append([]string{"..", "..", "..", "shared", "data"}, path...)...)
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		b.Skipf("%s is not beside the repository", name)
	}
	if err == nil && strings.HasSuffix(name, ".gz") {
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(data)); err == nil {
			data, err = io.ReadAll(r)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// prose is English text of n bytes: encyclopaedia, plays, essays and passages
// of encyclopaedias, some 5 MB of it different.
func prose(b testing.TB, n int) []byte {
	text := append(sharedText(b, "text", "wikitext2-valid.txt"), sharedText(b, "text", "tinyshakespeare.txt")...)
	essays, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "data", "needle", "PaulGrahamEssays", "*.txt"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range essays {
		text = append(text, sharedText(b, "needle", "PaulGrahamEssays", filepath.Base(name))...)
	}
	for record := range bytes.Lines(sharedText(b, "mdqa", "nq-open-oracle.jsonl.gz")) {
		var passages struct{ Ctxs []struct{ Text string } }
		if err := json.Unmarshal(record, &passages); err != nil {
			b.Fatal(err)
		}
		for _, p := range passages.Ctxs {
			text = append(append(text, p.Text...), '\n')
		}
	}
	return bytes.Repeat(text, n/len(text)+1)[:n]
}

// families returns a tokenizer of each family, with its name: Llama-2's, and
// the byte-level ones with the expressions of GPT-2, Llama-3 and Qwen and with
// a vocabulary that Train learnt from text.
func families(b testing.TB, text []byte) (names []string, toks map[string]Tokenizer) {
	toks = map[string]Tokenizer{}
	add := func(name string, tok Tokenizer, err error) {
		if err != nil {
			b.Fatal(err)
		}
		names, toks[name] = append(names, name), tok
	}
	tok, err := Load(llama2(b))
	add("llama2", tok, err)
	gpt2, err := newTiktokenPair("r50k_base", patternGPT2)
	add("gpt2", gpt2.tok, err)
	llama3, err := newTiktokenPair("cl100k_base", patternLlama3)
	add("llama3", llama3.tok, err)
	qwen, err := newTiktokenPair("cl100k_base", patternQwen)
	add("qwen", qwen.tok, err)
	learnt, err := Train(b.Context(), each(string(text[:2<<20])), TrainOptions{VocabSize: 8192})
	add("learnt", learnt, err)
	return names, toks
}

// BenchmarkEncode encodes the same prose in one text of 10 MB and in texts of
// 100 KB, one after the other, and a text of 100 KB over and over. It reports
// bytes per second of processor time, all goroutines together, and how much
// more a byte of the large text takes than one of the small texts
// ("10MB/100KB") and of the one that is repeated ("10MB/hot"):
//
//	GOMAXPROCS=1 go test ./pkg/tokenizer -run '^$' -bench BenchmarkEncode$ -benchtime 5x
func BenchmarkEncode(b *testing.B) {
	text := prose(b, largeText)
	names, toks := families(b, text)
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			tok := toks[name]
			var ids []int32
			best := [3]time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64}
			timed := func(i int, f func()) {
				start := processorTime(b)
				f()
				best[i] = min(best[i], processorTime(b)-start)
			}
			for b.Loop() {
				timed(0, func() { ids = tok.Encode(text, ids[:0]) })
				timed(1, func() {
					for part := range slices.Chunk(text, smallText) {
						ids = tok.Encode(part, ids[:0])
					}
				})
				timed(2, func() {
					for range largeText / smallText {
						ids = tok.Encode(text[:smallText], ids[:0])
					}
				})
			}
			rate := func(i int) float64 { return largeText / 1e6 / best[i].Seconds() }
			b.ReportMetric(0, "ns/op") // the time of all three together says nothing
			b.ReportMetric(rate(0), "MB/s-10MB")
			b.ReportMetric(rate(1), "MB/s-100KB")
			b.ReportMetric(rate(2), "MB/s-hot")
			b.ReportMetric(rate(1)/rate(0), "10MB/100KB")
			b.ReportMetric(rate(2)/rate(0), "10MB/hot")
		})
	}
}

// BenchmarkEncodeOdd encodes what is far from prose: random letters and one
// letter without a blank, and Chinese.
func BenchmarkEncodeOdd(b *testing.B) {
	letters := make([]byte, largeText)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range letters {
		letters[i] = "etaoinshrdlucmfw"[r.IntN(16)]
	}
	names, toks := families(b, prose(b, largeText))
	for _, name := range names {
		for _, kind := range []struct {
			name string
			text []byte
		}{{"letters", letters}, {"a", bytes.Repeat([]byte("a"), largeText)}, {"chinese", []byte(strings.Repeat("船在早上七点离开港口雾来的时候", largeText/45))}} {
			for _, n := range []int{smallText, largeText} {
				b.Run(fmt.Sprintf("%s/%s/%dKB", name, kind.name, n>>10), func(b *testing.B) {
					text := kind.text[:min(n, len(kind.text))]
					var ids []int32
					b.SetBytes(int64(len(text)))
					for b.Loop() {
						ids = toks[name].Encode(text, ids[:0])
					}
				})
			}
		}
	}
}
