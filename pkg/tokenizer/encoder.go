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

	// known remembers the tokens of words, each in the place that its hash
	// names, until another word takes it.
	known []knownWord
	seed  maphash.Seed
}

// knownWord fills one line of the cache.
type knownWord struct {
	length, tokens uint8
	word           [cachedWord]byte
	ids            [cachedTokens]int32
}

const (
	// cachedWord is the length in bytes up to which words are remembered:
	// longer ones seldom come twice.
	cachedWord = 22
	// cachedTokens is how many tokens of a word are.
	cachedTokens = 10
	// cachedWords is how many words are.
	cachedWords = 1 << 16
)

func newEncoder(t *BPE) *encoder {
	e := &encoder{
		t: t, normal: make([][]byte, len(t.normalizers)), split: make([][]byte, len(t.pre.splitters)),
		merger: merger{m: t.model, window: cacheWindow}, known: make([]knownWord, cachedWords), seed: maphash.MakeSeed(),
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
	if e.t.model.ignoreMerges {
		if id, ok := e.t.model.vocab[string(word)]; ok {
			e.dst = append(e.dst, id)
			return
		}
	}
	if len(word) <= cachedWord {
		e.cached(word)
		return
	}
	for len(word) > 0 {
		n := e.t.model.cut(word)
		if n <= cachedWord {
			e.cached(word[:n])
		} else {
			e.dst = e.merger.word(word[:n], e.dst)
		}
		word = word[n:]
	}
}

// cached appends the tokens of a short word.
func (e *encoder) cached(word []byte) {
	k := &e.known[maphash.Bytes(e.seed, word)%cachedWords]
	if string(k.word[:k.length]) == string(word) {
		e.dst = append(e.dst, k.ids[:k.tokens]...)
		return
	}
	from := len(e.dst)
	e.dst = e.merger.word(word, e.dst)
	if ids := e.dst[from:]; len(ids) <= cachedTokens {
		k.length, k.tokens = uint8(len(word)), uint8(len(ids))
		copy(k.word[:], word)
		copy(k.ids[:], ids)
	}
}
