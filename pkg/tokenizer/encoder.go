package tokenizer

import "hash/maphash"

// encoder is the scratch memory of one Encode at a time.
type encoder struct {
	t      *BPE
	dst    []int32
	normal [][]byte                         // by normalizer
	split  [][]byte                         // by splitter
	stages []func(piece []byte, first bool) // by splitter, then the model
	merger merger

	// known remembers the tokens of words, each in the set that its hash names,
	// until two others have come to it.
	known [][2]knownWord
	seed  maphash.Seed
}

// knownWord fills one line of the cache.
type knownWord struct {
	length, tokens uint8
	whole          bool // not a part of a longer word
	word           [cachedWord]byte
	ids            [cachedTokens]int32
}

const (
	// cachedWord is the length in bytes up to which words are remembered:
	// longer ones seldom come twice.
	cachedWord = 21
	// cachedTokens is how many tokens of a word are.
	cachedTokens = 10
	// cacheSets is how many pairs of words are, in 4 MiB.
	cacheSets = 1 << 15
)

func newEncoder(t *BPE) *encoder {
	e := &encoder{
		t: t, normal: make([][]byte, len(t.normalizers)), split: make([][]byte, len(t.pre.splitters)),
		merger: merger{m: t.model, window: cacheWindow}, known: make([][2]knownWord, cacheSets), seed: maphash.MakeSeed(),
	}
	e.stages = make([]func([]byte, bool), len(t.pre.splitters)+1)
	e.stages[len(t.pre.splitters)] = func(word []byte, _ bool) { e.word(word) }
	for i, s := range t.pre.splitters {
		e.stages[i] = func(piece []byte, first bool) {
			if len(piece) > 0 {
				s.split(piece, first, &e.split[i], e.stages[i+1])
			}
		}
	}
	return e
}

// word appends the tokens of one piece of text.
func (e *encoder) word(word []byte) {
	if len(word) == 0 {
		return
	}
	if len(word) <= cachedWord {
		e.cached(word, true)
		return
	}
	if e.wholeWord(word) {
		return
	}
	for len(word) > 0 {
		n := e.t.model.cut(word)
		if n <= cachedWord {
			e.cached(word[:n], false)
		} else {
			e.dst = e.merger.word(word[:n], e.dst)
		}
		word = word[n:]
	}
}

// wholeWord appends the token that is word, where the model asks for it before
// all merges and has one.
func (e *encoder) wholeWord(word []byte) bool {
	if !e.t.model.ignoreMerges {
		return false
	}
	id, ok := e.t.model.vocab[string(word)]
	if ok {
		e.dst = append(e.dst, id)
	}
	return ok
}

// cached appends the tokens of a short word or, where whole is false, of a part
// of a longer one.
func (e *encoder) cached(word []byte, whole bool) {
	hash := maphash.Bytes(e.seed, word)
	if !whole {
		hash = ^hash
	}
	set := &e.known[hash%cacheSets]
	for i := range set {
		if k := &set[i]; k.whole == whole && string(k.word[:k.length]) == string(word) {
			e.dst = append(e.dst, k.ids[:k.tokens]...)
			return
		}
	}
	from := len(e.dst)
	if !whole || !e.wholeWord(word) {
		e.dst = e.merger.word(word, e.dst)
	}
	if ids := e.dst[from:]; len(ids) <= cachedTokens {
		set[1] = set[0]
		k := &set[0]
		k.length, k.tokens, k.whole = uint8(len(word)), uint8(len(ids)), whole
		copy(k.word[:], word)
		copy(k.ids[:], ids)
	}
}
