package tokenizer

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// TrainOptions say what Train learns.
type TrainOptions struct {
	VocabSize    int // tokens, with the 256 bytes, <s>, </s> and [MASK]
	MinFrequency int // pairs that occur less often are not merged (0: 2)
	Threads      int // goroutines that count words (0: one per processor); the result does not depend on it
	// Progress is called now and then by one goroutine at a time, and at the
	// end; nil is not called.
	Progress func(TrainProgress)
}

// TrainProgress is how far Train is: first it counts the words of all texts,
// then it merges.
type TrainProgress struct {
	Bytes  int64 // of text that were counted
	Words  int   // different words, once all are counted
	Merges int
	Total  int // merges to be made
}

// MinVocabSize is the size of a vocabulary without merges, MaxVocabSize the
// largest one.
const (
	MinVocabSize = byteVocabSize
	MaxVocabSize = maxID
)

// Train learns a byte-level BPE vocabulary: the 256 bytes and <s>, </s> and
// [MASK] with the ids that they have in ByteLevel, then a token for each merge
// of the pair of neighbours that is the most frequent one within words
// (Sennrich et al. 2016, section 3.2). Words are the pieces of Llama-3's
// expression. Of pairs that are equally frequent the one whose left token came
// first is merged, then the one whose right token did, with bytes in the order
// of their characters: the order of Hugging Face's BpeTrainer.
//
// The vocabulary is smaller than o.VocabSize where the texts have no more pairs
// that occur o.MinFrequency times. Texts may reuse their memory.
func Train(ctx context.Context, texts iter.Seq2[[]byte, error], o TrainOptions) (*BPE, error) {
	if o.VocabSize < MinVocabSize || o.VocabSize > maxID {
		return nil, fmt.Errorf("a vocabulary of %d tokens: must be between %d (the bytes, %s, %s and %s) and %d",
			o.VocabSize, MinVocabSize, BOSToken, EOSToken, MaskToken, maxID)
	}
	if o.MinFrequency < 1 {
		o.MinFrequency = 2
	}
	if o.Threads < 1 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(TrainProgress) {}
	}
	counts, size, err := countWords(ctx, texts, o)
	if err != nil {
		return nil, err
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("there is no text to learn a vocabulary from; name files that hold some")
	}
	l := newLearner(counts)
	progress := TrainProgress{Bytes: size, Words: len(counts), Total: o.VocabSize - MinVocabSize}
	for ; progress.Merges < progress.Total; progress.Merges = len(l.texts) - 256 {
		if progress.Merges%256 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			o.Progress(progress)
		}
		if !l.mergeBest(int64(o.MinFrequency)) {
			break
		}
	}
	o.Progress(progress)
	return l.tokenizer()
}

// chunkBytes is about how much text one goroutine counts at a time.
const chunkBytes = 1 << 20

// countWords returns how often each word occurs.
func countWords(ctx context.Context, texts iter.Seq2[[]byte, error], o TrainOptions) (map[string]int64, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan []byte, o.Threads)
	parts := make([]map[string]int64, o.Threads)
	var done atomic.Int64
	var workers sync.WaitGroup
	for i := range parts {
		parts[i] = make(map[string]int64)
		workers.Go(func() {
			pointers := make(map[string]*int64)
			for chunk := range chunks {
				count(chunk, pointers)
				done.Add(int64(len(chunk)))
			}
			for word, n := range pointers {
				parts[i][word] = *n
			}
		})
	}
	send := func(text []byte) bool {
		select {
		case chunks <- bytes.Clone(text):
			return true
		case <-ctx.Done():
			return false
		}
	}
	for text, err := range texts {
		if err != nil {
			cancel(err)
			break
		}
		for len(text) > 0 && ctx.Err() == nil {
			n := cutChunk(text)
			if !send(text[:n]) {
				break
			}
			text = text[n:]
		}
		if ctx.Err() != nil {
			break
		}
		o.Progress(TrainProgress{Bytes: done.Load(), Total: o.VocabSize - MinVocabSize})
	}
	close(chunks)
	workers.Wait()
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	all := parts[0]
	for _, part := range parts[1:] {
		for word, n := range part {
			all[word] += n
		}
	}
	return all, done.Load(), nil
}

func count(text []byte, words map[string]*int64) {
	scanSplit{planeClasses(), scanners[patternLlama3]}.split(text, true, nil, func(word []byte, _ bool) {
		n := words[string(word)]
		if n == nil {
			n = new(int64)
			words[string(word)] = n
		}
		*n++
	})
}

// cutChunk returns a length of text, of chunkBytes or more, after which a word
// ends wherever the text is cut: after a newline that no white space follows.
func cutChunk(text []byte) int {
	for n := chunkBytes; n < len(text); n++ {
		if text[n-1] == '\n' && text[n] > ' ' && text[n] < utf8.RuneSelf {
			return n
		}
	}
	return len(text)
}

// learner holds the words as rows of tokens, and how often each pair of
// neighbours occurs.
type learner struct {
	words  []countedWord
	pairs  map[pair]*pairCount
	queue  pairQueue
	texts  []string // by token: its bytes
	tokens map[string]int32
	merges []pair
}

type countedWord struct {
	tokens []int32
	count  int64
}

type pair struct{ left, right int32 }

type pairCount struct {
	count int64
	words []int32 // in which it occurs, or did
}

// newLearner begins with bytes as tokens, numbered in the order of their
// characters.
func newLearner(counts map[string]int64) *learner {
	l := &learner{pairs: make(map[pair]*pairCount), tokens: make(map[string]int32)}
	characters := byteCharacters()
	for b := range 256 {
		l.texts = append(l.texts, string([]byte{byte(b)}))
	}
	slices.SortFunc(l.texts, func(a, b string) int { return cmp.Compare(characters[a[0]], characters[b[0]]) })
	var number [256]int32
	for i, s := range l.texts {
		number[s[0]] = int32(i)
		l.tokens[s] = int32(i)
	}
	for word, n := range counts {
		w := countedWord{tokens: make([]int32, len(word)), count: n}
		for i := range len(word) {
			w.tokens[i] = number[word[i]]
		}
		l.words = append(l.words, w)
	}
	for i, w := range l.words {
		for j := 1; j < len(w.tokens); j++ {
			l.change(pair{w.tokens[j-1], w.tokens[j]}, w.count, int32(i))
		}
	}
	for p, c := range l.pairs {
		l.queue = append(l.queue, queued{c.count, p})
	}
	heap.Init(&l.queue)
	return l
}

// change adds n to the count of a pair in a word.
func (l *learner) change(p pair, n int64, word int32) {
	c := l.pairs[p]
	if c == nil {
		if n < 0 {
			return // the pair that is being merged
		}
		c = &pairCount{}
		l.pairs[p] = c
	}
	c.count += n
	if n > 0 && (len(c.words) == 0 || c.words[len(c.words)-1] != word) {
		c.words = append(c.words, word)
	}
}

// mergeBest merges the most frequent pair; it reports false where there is
// none that occurs at least so often.
func (l *learner) mergeBest(least int64) bool {
	for len(l.queue) > 0 {
		top := l.queue[0]
		c := l.pairs[top.pair]
		if c == nil {
			heap.Pop(&l.queue)
			continue
		}
		if c.count != top.count { // counts in the queue are those of when it was put there
			l.queue[0].count = c.count
			heap.Fix(&l.queue, 0)
			continue
		}
		if c.count < least {
			return false
		}
		heap.Pop(&l.queue)
		text := l.texts[top.pair.left] + l.texts[top.pair.right]
		if text == BOSToken || text == EOSToken || text == MaskToken {
			continue // a string has one id
		}
		l.merge(top.pair, c, text)
		return true
	}
	return false
}

func (l *learner) merge(p pair, c *pairCount, text string) {
	token, ok := l.tokens[text]
	if !ok { // else another pair has made the same token
		token = int32(len(l.texts))
		l.texts = append(l.texts, text)
		l.tokens[text] = token
	}
	l.merges = append(l.merges, p)
	delete(l.pairs, p)
	grown := make(map[pair]struct{})
	for _, word := range c.words {
		w := &l.words[word]
		in, out := w.tokens, w.tokens[:0]
		for i := 0; i < len(in); i++ {
			if in[i] != p.left || i+1 == len(in) || in[i+1] != p.right {
				out = append(out, in[i])
				continue
			}
			if len(out) > 0 {
				before := out[len(out)-1]
				l.change(pair{before, p.left}, -w.count, word)
				l.change(pair{before, token}, w.count, word)
				grown[pair{before, token}] = struct{}{}
			}
			i++
			if i+1 < len(in) {
				l.change(pair{p.right, in[i+1]}, -w.count, word)
				l.change(pair{token, in[i+1]}, w.count, word)
				grown[pair{token, in[i+1]}] = struct{}{}
			}
			out = append(out, token)
		}
		w.tokens = out
	}
	for q := range grown {
		// The queue's order is a total one, so that the order of these does not matter.
		if c := l.pairs[q]; c != nil && c.count > 0 {
			heap.Push(&l.queue, queued{c.count, q})
		}
	}
}

type queued struct {
	count int64
	pair  pair
}

// pairQueue is a heap of pairs, the most frequent first.
type pairQueue []queued

func (q pairQueue) Len() int      { return len(q) }
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q pairQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.pair.left, b.pair.left), cmp.Compare(a.pair.right, b.pair.right)) < 0
}
func (q *pairQueue) Push(x any) { *q = append(*q, x.(queued)) }
func (q *pairQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// tokenizer writes what was learnt as a tokenizer.json and reads that.
func (l *learner) tokenizer() (*BPE, error) {
	d := byteDefinition()
	for _, a := range d.AddedTokens {
		d.Model.Vocab[a.Content] = a.ID
	}
	characters := byteCharacters()
	visible := func(text string) string {
		var s []byte
		for i := range len(text) {
			s = append(s, characters[text[i]]...)
		}
		return string(s)
	}
	for i, text := range l.texts[256:] {
		d.Model.Vocab[visible(text)] = int32(MinVocabSize + i)
	}
	for _, p := range l.merges {
		d.Model.Merges = append(d.Model.Merges, mergePair{visible(l.texts[p.left]), visible(l.texts[p.right])})
	}
	type split struct {
		Type     string            `json:"type"`
		Pattern  map[string]string `json:"pattern"`
		Behavior string            `json:"behavior"`
		Invert   bool              `json:"invert"`
	}
	var err error
	d.PreTokenizer, err = json.Marshal(struct {
		Type          string `json:"type"`
		PreTokenizers []any  `json:"pretokenizers"`
	}{"Sequence", []any{split{"Split", map[string]string{"Regex": patternLlama3}, isolated, false}, plainByteLevel}})
	if err != nil {
		return nil, fmt.Errorf("encoding the vocabulary: %w", err)
	}
	file, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the vocabulary: %w", err)
	}
	config, err := json.MarshalIndent(specialConfig(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the vocabulary: %w", err)
	}
	return newBPE(&d, append(file, '\n'), append(config, '\n'))
}
