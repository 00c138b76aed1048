package dialogue

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"meap/pkg/tokenizer"
)

// encoder writes rendered text as ids. The special tokens of a template become their ids, whatever the tokenizer does with their
// strings; the same strings in what people wrote stay text, so that no dialogue can end a turn or begin another.
type encoder struct {
	tok     tokenizer.Tokenizer
	special map[string]int32
	pattern *regexp.Regexp // any special token's string; nil where there are none
	splits  bool           // Encode finds special tokens by itself
}

// hidden stands inside a special token's string in people's text: a character that Unicode gives to programs for such uses. Text is
// encoded in pieces around it, and it is left out.
const hidden = "\ufdd0"

func newEncoder(tok tokenizer.Tokenizer) *encoder {
	e := &encoder{tok: tok, special: map[string]int32{}, splits: true}
	for _, id := range tok.Special() {
		s := string(tok.Decode([]int32{id}))
		e.special[s] = id
		e.splits = e.splits && slices.Equal(tok.Encode([]byte(s), nil), []int32{id})
	}
	names := make([]string, 0, len(e.special))
	for s := range e.special {
		names = append(names, s)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) }) // the longest first
	for i, s := range names {
		names[i] = regexp.QuoteMeta(s)
	}
	if len(names) > 0 {
		e.pattern = regexp.MustCompile(strings.Join(names, "|"))
	}
	return e
}

// hide makes special tokens' strings in people's text nothing but text.
func (e *encoder) hide(text string) string {
	text = strings.ReplaceAll(text, hidden, "")
	for e.pattern != nil && e.pattern.MatchString(text) {
		before := text
		text = e.pattern.ReplaceAllStringFunc(text, func(s string) string {
			_, n := utf8.DecodeRuneInString(s)
			if n == len(s) {
				return s // a token of one character cannot be taken apart
			}
			return s[:n] + hidden + s[n:]
		})
		if text == before {
			break
		}
	}
	return text
}

// encode appends the ids of rendered text.
func (e *encoder) encode(text string, ids []int32) []int32 {
	for piece := range strings.SplitSeq(text, hidden) {
		for !e.splits && e.pattern != nil {
			at := e.pattern.FindStringIndex(piece)
			if at == nil {
				break
			}
			ids = e.tok.Encode([]byte(piece[:at[0]]), ids)
			ids = append(ids, e.special[piece[at[0]:at[1]]])
			piece = piece[at[1]:]
		}
		if piece != "" {
			ids = e.tok.Encode([]byte(piece), ids)
		}
	}
	return ids
}

// after returns the ids of text that follows the special token before, "" at the beginning of a dialogue. What a tokenizer writes
// at the beginning of a text only (a blank, in Llama 2's) is not written in its middle.
func (e *encoder) after(before, text string) []int32 {
	ids := e.encode(before+text, nil)
	if before != "" {
		ids = ids[1:]
	}
	return ids
}

// turn returns the ids of a question, with all that stands before its answer, and of the answer. They are those of the whole text, as
// transformers' apply_chat_template has them, where a token ends at the boundary; where one would reach across it, the two are
// encoded apart, because a model that answers sees the question's tokens before there is an answer.
func (e *encoder) turn(before, question, answer string) (q, a []int32) {
	q, all := e.after(before, question), e.after(before, question+answer)
	if len(q) < len(all) && slices.Equal(all[:len(q)], q) {
		return q, all[len(q):]
	}
	return q, e.encode(answer, nil)
}
