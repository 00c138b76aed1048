package dataset

import (
	"fmt"
	"iter"
	"path/filepath"
	"slices"
)

// packedFile is a LITPKDS file that is read as a source: tokens that are taken as they are.
type packedFile struct {
	shard
	tokens int64 // without what fills it up
}

// ids is what a file of tokens has to agree with.
type ids struct {
	vocab       int
	bos, eos    int32
	fingerprint string // of the tokenizer
}

// openPacked maps a file and finds where its tokens end. A shard that meap has written has an index beside it, which knows. The
// reference keeps no account: it fills its last file up with the separator, so that what a file ends in is cut off where that is a
// run of separators. Of a run of EOS, the first ends a document; one BOS alone may begin a document that the next file goes on with.
func openPacked(path string, want ids) (packedFile, error) {
	s, err := openShard(path, 0)
	if err != nil {
		return packedFile{}, fmt.Errorf("%w; copy it anew, or remove it from the sources", err)
	}
	p := packedFile{shard: s, tokens: int64(len(s.data) / s.dtype.size())}
	if s.dtype == dtypeUint16 && want.vocab >= maxUint16Vocab {
		return p, p.closeAfter(fmt.Errorf("its ids are uint16, which is for vocabularies below %d, and the tokenizer has %d: it was made with another tokenizer; set tokenizer.path to that one", maxUint16Vocab, want.vocab))
	}
	if x, err := ReadIndex(filepath.Dir(path)); err == nil {
		if n, ok := x.tokensOf(filepath.Base(path)); ok && n <= p.tokens {
			if x.Tokenizer != want.fingerprint && want.fingerprint != "" {
				return p, p.closeAfter(fmt.Errorf("%s beside it says that it was made with another tokenizer; set tokenizer.path to that one", IndexFile))
			}
			p.tokens = n
			return p, nil
		}
	}
	p.tokens -= p.filler(want)
	return p, nil
}

func (p *packedFile) closeAfter(err error) error {
	p.mapped.Unmap()
	return err
}

// tokensOf returns the tokens of the shard of that name.
func (x *Index) tokensOf(name string) (int64, bool) {
	for _, split := range []*SplitInfo{&x.Train, x.Validation} {
		if split == nil {
			continue
		}
		if i := slices.IndexFunc(split.Shards, func(s ShardInfo) bool { return s.Name == name }); i >= 0 {
			return split.Shards[i].Tokens, true
		}
	}
	return 0, false
}

// id returns the token at a place.
func (p *packedFile) id(at int64) int32 {
	var id [1]int32
	decodeTokens(p.dtype, p.data, at, id[:])
	return id[0]
}

// filler returns how many of the last tokens fill the file up.
func (p *packedFile) filler(want ids) int64 {
	if p.tokens == 0 {
		return 0
	}
	last := p.id(p.tokens - 1)
	if last != want.bos && last != want.eos {
		return 0
	}
	n := int64(1)
	for n < p.tokens && p.id(p.tokens-1-n) == last {
		n++
	}
	switch {
	case last == want.eos:
		return n - 1
	case n == 1:
		return 0
	}
	return n
}

// of returns the part's first token and the one after its last. The cut is after the last document that ends before the held-out
// fraction begins, or, where that would hold out more than twice as much, in the middle of a document.
func (p *packedFile) of(part part, fraction float64, eos int32) (from, to int64) {
	if part == whole {
		return 0, p.tokens
	}
	limit := p.tokens - int64(float64(p.tokens)*fraction)
	cut, least := limit, max(1, 2*limit-p.tokens)
	for cut > least && p.id(cut-1) != eos {
		cut--
	}
	if cut == least {
		cut = limit
	}
	if part == head {
		return 0, cut
	}
	return cut, p.tokens
}

// packedRun is the number of tokens that are handed on at once.
const packedRun = 1 << 18

// runs streams the tokens of a part, checked against the vocabulary. A run is valid until the next one.
func (p *packedFile) runs(from, to int64, want ids) iter.Seq2[[]int32, error] {
	return func(yield func([]int32, error) bool) {
		buf := make([]int32, min(packedRun, to-from))
		for at := from; at < to; {
			run := buf[:min(int64(len(buf)), to-at)]
			decodeTokens(p.dtype, p.data, at, run)
			for i, id := range run {
				if uint32(id) >= uint32(want.vocab) {
					yield(nil, fmt.Errorf("token %d has id %d, beyond the tokenizer's %d: it is damaged or was made with another tokenizer; set tokenizer.path to that one",
						at+int64(i), id, want.vocab))
					return
				}
			}
			if !yield(run, nil) {
				return
			}
			at += int64(len(run))
		}
	}
}
