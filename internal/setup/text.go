package setup

import (
	"fmt"
	"os"

	"meap/internal/config"
	"meap/pkg/dataset"
	"meap/pkg/eval"
	"meap/pkg/tokenizer"
)

// Split makes a prepared split a stream of tokens for package eval.
func Split(s *dataset.Stream, tok tokenizer.Tokenizer) eval.Stream { return split{s, tok} }

type split struct {
	*dataset.Stream
	tok tokenizer.Tokenizer
}

// Len implements eval.Stream.
func (s split) Len() int { return int(s.Stream.Len()) }

// Tokens implements eval.Stream.
func (s split) Tokens(from, to int) ([]int32, error) {
	ids := make([]int32, to-from)
	return ids, s.Read(int64(from), ids)
}

// Bytes implements eval.Stream.
func (s split) Bytes(n int) (int64, error) {
	if n >= s.Len() {
		return s.Info.Bytes, nil
	}
	ids, err := s.Tokens(0, n)
	if err != nil {
		return 0, err
	}
	return int64(len(decodeText(s.tok, ids))), nil
}

// decodeText decodes ids without separators.
func decodeText(tok tokenizer.Tokenizer, ids []int32) []byte {
	special := map[int32]bool{}
	for _, id := range tok.Special() {
		special[id] = true
	}
	text := make([]int32, 0, len(ids))
	for _, id := range ids {
		if !special[id] {
			text = append(text, id)
		}
	}
	return tok.Decode(text)
}

// Files makes text files a stream of tokens for package eval, packed as the training data is: <s> text </s>, or what of these
// the tokenizer has.
func Files(paths []string, tok tokenizer.Tokenizer) (eval.Stream, error) {
	t := &eval.Text{Decode: func(ids []int32) []byte { return decodeText(tok, ids) }}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, config.Misnamed(path, fmt.Errorf("--text: %w; name a text file", err))
		}
		if len(raw) == 0 {
			return nil, &config.Error{Problems: []error{fmt.Errorf("--text: %s is empty; name a file that holds text", path)}}
		}
		t.Size += int64(len(raw))
		if bos := dataset.DocumentBOS(tok); bos >= 0 {
			t.IDs = append(t.IDs, bos)
		}
		t.IDs = tok.Encode(raw, t.IDs)
		if eos := tok.EOS(); eos >= 0 {
			t.IDs = append(t.IDs, eos)
		}
	}
	return t, nil
}
