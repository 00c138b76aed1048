package dataset

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"meap/pkg/tokenizer"
)

// InspectedShard says what a LITPKDS file holds.
type InspectedShard struct {
	File   string `json:"file"`
	DType  string `json:"dtype"`
	Chunk  int64  `json:"chunk"`  // tokens of the file
	Tokens int64  `json:"tokens"` // without what fills it up
	Filler int64  `json:"filler"` // tokens that fill it up
	// FillerKnown says that an index tells; else it is a run of separators at the end, where the separator is known from a tokenizer,
	// or taken to be what the file ends in.
	FillerKnown bool  `json:"filler_known"`
	Smallest    int32 `json:"smallest"` // id
	Largest     int32 `json:"largest"`
	// What follows needs a tokenizer.
	Beyond    int64     `json:"beyond_vocabulary"`   // ids that the tokenizer has not
	Documents int64     `json:"documents,omitempty"` // that begin in the file, or end where nothing begins one
	Segments  []Segment `json:"segments"`            // the first tokens, one document each
}

// InspectShard reads a LITPKDS file that meap or the reference has written. Its first show tokens come with their ids and, where there
// is a tokenizer, their text; tok may be nil.
func InspectShard(path string, tok tokenizer.Tokenizer, show int) (*InspectedShard, error) {
	fail := func(err error) (*InspectedShard, error) { return nil, fmt.Errorf("reading shard %s: %w", path, err) }
	s, err := openShard(path, 0)
	if err != nil {
		return fail(err)
	}
	defer s.mapped.Unmap()
	p := packedFile{shard: s, tokens: int64(len(s.data) / s.dtype.size())}
	if p.tokens == 0 {
		return fail(errors.New("it holds no tokens"))
	}
	r := &InspectedShard{File: path, DType: s.dtype.String(), Chunk: p.tokens, Segments: []Segment{}}
	last := p.id(p.tokens - 1)
	want := ids{bos: -1, eos: -1}
	if tok != nil {
		want = ids{vocab: tok.VocabSize(), bos: tok.BOS(), eos: tok.EOS()}
	} else if p.tokens > 1 && p.id(p.tokens-2) == last {
		want.bos = last // whether it began or ended documents, ids alone do not tell
	}
	r.Filler = p.filler(want)
	if x, err := ReadIndex(filepath.Dir(path)); err == nil {
		if n, ok := x.tokensOf(filepath.Base(path)); ok && n <= p.tokens {
			r.Filler, r.FillerKnown = p.tokens-n, true
		}
	}
	r.Tokens = p.tokens - r.Filler
	r.Smallest = p.id(0)
	mark := int32(-1)
	if tok != nil {
		if mark = DocumentBOS(tok); mark < 0 {
			mark = tok.EOS()
		}
	}
	buf := make([]int32, packedRun)
	for at := int64(0); at < r.Tokens; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), r.Tokens-at)]
		decodeTokens(p.dtype, p.data, at, buf)
		for _, id := range buf {
			r.Smallest, r.Largest = min(r.Smallest, id), max(r.Largest, id)
			if tok != nil && uint32(id) >= uint32(want.vocab) {
				r.Beyond++
			}
			if tok != nil && id == mark {
				r.Documents++
			}
		}
	}
	head := make([]int32, min(int64(max(0, show)), r.Tokens))
	decodeTokens(p.dtype, p.data, 0, head)
	for at := 0; at < len(head); {
		end := at + 1
		for tok != nil && end < len(head) && head[end-1] != want.eos {
			end++
		}
		if tok == nil {
			end = len(head)
		}
		segment := Segment{Start: at, IDs: slices.Clone(head[at:end])}
		if tok != nil {
			segment.Text = visible(tok.Decode(segment.IDs))
		}
		r.Segments = append(r.Segments, segment)
		at = end
	}
	return r, nil
}

// String renders the shard for a terminal: lines of numbers, then the first tokens.
func (r InspectedShard) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: LITPKDS, %s, %d tokens", r.File, r.DType, r.Tokens)
	if r.Filler > 0 {
		how := "separators at the end, which seem to fill it up"
		if r.FillerKnown {
			how = "that fill it up"
		}
		fmt.Fprintf(&s, " and %d %s", r.Filler, how)
	}
	fmt.Fprintf(&s, ", ids %d to %d", r.Smallest, r.Largest)
	if r.Documents > 0 {
		fmt.Fprintf(&s, ", %d documents", r.Documents)
	}
	s.WriteByte('\n')
	if r.Beyond > 0 {
		fmt.Fprintf(&s, "%d ids are beyond the tokenizer's vocabulary: the file is damaged or was made with another tokenizer\n", r.Beyond)
	}
	for _, segment := range r.Segments {
		if segment.Text == "" {
			fmt.Fprintln(&s, segment.IDs)
			continue
		}
		s.WriteString(strings.ReplaceAll(segment.Text, "⏎", "⏎\n"))
		s.WriteByte('\n')
	}
	return s.String()
}
