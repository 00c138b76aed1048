package tokenizer

// encoder is the scratch memory of one Encode at a time.
type encoder struct {
	t      *BPE
	dst    []int32
	normal [][]byte                         // by normalizer
	split  [][]byte                         // by splitter
	stages []func(piece []byte, first bool) // by splitter, then the model
	merger merger

	// known remembers the tokens of words: where they are in ids.
	known map[string]span
	ids   []int32
}

type span struct{ from, to int32 }

const (
	// cachedWord is the length in bytes up to which words are remembered:
	// longer ones seldom come twice.
	cachedWord = 48
	// cachedWords is how many are, before all are forgotten.
	cachedWords = 1 << 16
	// keptBytes is the size from which a buffer is given back after a text.
	keptBytes = 1 << 20
)

func newEncoder(t *BPE) *encoder {
	e := &encoder{
		t: t, normal: make([][]byte, len(t.normalizers)), split: make([][]byte, len(t.pre.splitters)),
		merger: merger{m: t.model, window: cacheWindow}, known: make(map[string]span),
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
	if s, ok := e.known[string(word)]; ok {
		e.dst = append(e.dst, e.ids[s.from:s.to]...)
		return
	}
	from := len(e.dst)
	e.dst = e.merger.word(word, e.dst)
	if len(e.known) >= cachedWords {
		clear(e.known)
		e.ids = e.ids[:0]
	}
	at := len(e.ids)
	e.ids = append(e.ids, e.dst[from:]...)
	e.known[string(word)] = span{int32(at), int32(len(e.ids))}
}

// release gives the memory back that only a long text needs.
func (e *encoder) release() {
	for _, list := range [][][]byte{e.normal, e.split} {
		for i, b := range list {
			if cap(b) > keptBytes {
				list[i] = nil
			}
		}
	}
	if cap(e.merger.id)*4 > keptBytes {
		e.merger = merger{m: e.t.model, window: cacheWindow}
	}
}
