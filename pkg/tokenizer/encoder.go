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

	// Words that were met keep their tokens in the set that their hash names,
	// until two others have come to it. Nearly all fit into a short place, two of
	// which fill a line of the processor's cache.
	short [][2]shortPlace
	long  [][2]longPlace
	seed  maphash.Seed
}

// shortPlace and longPlace hold a word with its tokens. whole says that it is
// not a part of a longer word.
type (
	shortPlace struct {
		length, tokens uint8
		whole          bool
		word           [shortBytes]byte
		ids            [shortTokens]int32
	}
	longPlace struct {
		length, tokens uint8
		whole          bool
		word           [longBytes]byte
		ids            [longTokens]int32
	}
)

const (
	shortBytes, shortTokens = 13, 4
	// Words above longBytes seldom come twice.
	longBytes, longTokens = 21, 10

	shortSets = 1 << 15 // 2 MiB
	longSets  = 1 << 13 // 1 MiB
)

func newEncoder(t *BPE) *encoder {
	e := &encoder{
		t: t, normal: make([][]byte, len(t.normalizers)), split: make([][]byte, len(t.pre.splitters)),
		merger: merger{m: t.model, window: cacheWindow},
		short:  make([][2]shortPlace, shortSets), long: make([][2]longPlace, longSets), seed: maphash.MakeSeed(),
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
	if len(word) <= longBytes {
		e.cached(word, true)
		return
	}
	if e.wholeWord(word) {
		return
	}
	for len(word) > 0 {
		n := e.t.model.cut(word)
		if n <= longBytes {
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
	short, long := &e.short[hash%shortSets], &e.long[hash%longSets]
	if len(word) <= shortBytes {
		for i := range short {
			if p := &short[i]; string(p.word[:p.length]) == string(word) && p.whole == whole {
				e.dst = append(e.dst, p.ids[:p.tokens]...)
				return
			}
		}
	}
	for i := range long {
		if p := &long[i]; string(p.word[:p.length]) == string(word) && p.whole == whole {
			e.dst = append(e.dst, p.ids[:p.tokens]...)
			return
		}
	}
	from := len(e.dst)
	if !whole || !e.wholeWord(word) {
		e.dst = e.merger.word(word, e.dst)
	}
	length, tokens := uint8(len(word)), uint8(min(len(e.dst)-from, longTokens+1))
	switch {
	case length <= shortBytes && tokens <= shortTokens:
		short[1] = short[0]
		p := &short[0]
		p.length, p.tokens, p.whole = length, tokens, whole
		copy(p.word[:], word)
		copy(p.ids[:], e.dst[from:])
	case tokens <= longTokens:
		long[1] = long[0]
		p := &long[0]
		p.length, p.tokens, p.whole = length, tokens, whole
		copy(p.word[:], word)
		copy(p.ids[:], e.dst[from:])
	}
}
