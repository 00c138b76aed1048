package eval

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// byteTok has one id per byte, 256 for BOS.
type byteTok struct{}

func (byteTok) Encode(text []byte, dst []int32) []int32 {
	for _, b := range text {
		dst = append(dst, int32(b))
	}
	return dst
}

func (byteTok) Decode(ids []int32) []byte {
	var out []byte
	for _, id := range ids {
		if id < 256 {
			out = append(out, byte(id))
		}
	}
	return out
}

func (byteTok) BOS() int32 { return 256 }

// pieceTok behaves as Llama 2's tokenizer at the seams: every text gets a blank
// put in front, blanks belong to the piece after them, decoding drops one
// leading blank, so that a full stop alone and one in a text have different ids.
type pieceTok struct {
	ids    map[string]int32
	pieces []string
}

func newPieceTok() *pieceTok { return &pieceTok{ids: map[string]int32{}} }

func (t *pieceTok) Encode(text []byte, dst []int32) []int32 {
	if len(text) == 0 {
		return dst
	}
	s := " " + string(text)
	for len(s) > 0 {
		n := 1
		for n < len(s) && n < 8 && (s[n] >= 'a' && s[n] <= 'z' || s[n] >= 0x80) {
			n++
		}
		if s[0] == ' ' && n == 1 && len(s) > 1 && s[1] != ' ' && s[1] != '\n' {
			n = 2
			for n < len(s) && n < 8 && (s[n] >= 'a' && s[n] <= 'z') {
				n++
			}
		}
		id, ok := t.ids[s[:n]]
		if !ok {
			id = int32(len(t.pieces) + 1) // 0 is BOS
			t.ids[s[:n]] = id
			t.pieces = append(t.pieces, s[:n])
		}
		dst = append(dst, id)
		s = s[n:]
	}
	return dst
}

func (t *pieceTok) Decode(ids []int32) []byte {
	var out []byte
	for _, id := range ids {
		if id > 0 {
			out = append(out, t.pieces[id-1]...)
		}
	}
	return bytes.TrimPrefix(out, []byte(" "))
}

func (t *pieceTok) BOS() int32 { return 0 }

// scorerFunc is a model given by a function that scores one token of one
// sequence.
type scorerFunc struct {
	seq   int
	score func(ids []int32, at int) float64
}

func (f scorerFunc) MaxSeq() int { return f.seq }

func (f scorerFunc) LogProbs(_ context.Context, seqs []Sequence) ([][]float32, error) {
	out := make([][]float32, len(seqs))
	for i, s := range seqs {
		for at := s.From; at < len(s.IDs); at++ {
			out[i] = append(out[i], float32(f.score(s.IDs, at)))
		}
	}
	return out, nil
}

func uniform(vocab, seq int) scorerFunc {
	return scorerFunc{seq, func([]int32, int) float64 { return -math.Log(float64(vocab)) }}
}

// prose makes n bytes of sentences of changing length, with decimal points,
// quotations and abbreviations between them, and no full stop ending a line.
func prose(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		switch i % 4 {
		case 0:
			b.WriteString("It was a long walk of 3.14 miles along the river. ")
		case 1:
			b.WriteString("\"Where does it end?\" asked the older one of the two. ")
		case 2:
			b.WriteString("Nobody knew, and the naïve café owner laughed!\n")
		default:
			b.WriteString("They went on until dusk, resting at file.go every hour or so. ")
		}
	}
	return b.String()
}

// haystackOf writes one file and returns it as a haystack.
func haystackOf(t *testing.T, text string) *Haystack {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := FindHaystack(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
