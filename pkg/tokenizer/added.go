package tokenizer

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// addedTokens finds added tokens in a text, of those that begin at the same
// place the longest. Nil finds none.
type addedTokens struct {
	nodes []trieNode
	root  [256]int32 // node after a first byte, or 0
	only  int        // the byte that all tokens begin with, or -1
}

type trieNode struct {
	children map[byte]int32
	token    *addedToken // the one that ends here
}

// newAddedTokens returns what finds the given strings.
func newAddedTokens(tokens []addedToken, content func(addedToken) string) *addedTokens {
	if len(tokens) == 0 {
		return nil
	}
	t := &addedTokens{nodes: make([]trieNode, 1)}
	for i := range tokens {
		s := content(tokens[i])
		if s == "" {
			continue
		}
		at := int32(0)
		for _, b := range []byte(s) {
			child, ok := t.nodes[at].children[b]
			if !ok {
				child = int32(len(t.nodes))
				t.nodes = append(t.nodes, trieNode{})
				if t.nodes[at].children == nil {
					t.nodes[at].children = make(map[byte]int32)
				}
				t.nodes[at].children[b] = child
			}
			at = child
		}
		if t.nodes[at].token == nil {
			t.nodes[at].token = &tokens[i]
		}
	}
	t.only = -1
	for b, node := range t.nodes[0].children {
		t.root[b] = node
		if len(t.nodes[0].children) == 1 {
			t.only = int(b)
		}
	}
	return t
}

// find returns the first token in text at or after from, and where it is.
func (t *addedTokens) find(text []byte, from int) (token *addedToken, start, end int) {
	for at := from; at < len(text); at++ {
		if t.only >= 0 {
			skip := bytes.IndexByte(text[at:], byte(t.only))
			if skip < 0 {
				break
			}
			at += skip
		}
		node, ok := t.root[text[at]], true
		if node == 0 {
			continue
		}
		for i := at + 1; ok; i++ {
			if t.nodes[node].token != nil {
				token, end = t.nodes[node].token, i
			}
			if i == len(text) {
				break
			}
			node, ok = t.nodes[node].children[text[i]]
		}
		if token != nil {
			return token, at, end
		}
	}
	return nil, len(text), len(text)
}

// split calls emit for the pieces of text in order: those between added tokens
// with token nil, and the added tokens.
func (t *addedTokens) split(text []byte, emit func(piece []byte, at int, token *addedToken)) {
	done := 0
	if t != nil {
		for from := 0; ; {
			token, start, end := t.find(text, from)
			if token == nil {
				break
			}
			from = end
			if token.SingleWord && (endsInWord(text[:start]) || beginsWithWord(text[end:])) {
				continue
			}
			if token.LStrip {
				start = max(len(bytes.TrimRightFunc(text[:start], unicode.IsSpace)), done)
			}
			if token.RStrip {
				end = len(text) - len(bytes.TrimLeftFunc(text[end:], unicode.IsSpace))
			}
			if done < start {
				emit(text[done:start:start], done, nil)
			}
			emit(text[start:end], start, token)
			done = end
		}
	}
	if done < len(text) {
		emit(text[done:], done, nil)
	}
}

func beginsWithWord(text []byte) bool {
	r, _ := utf8.DecodeRune(text)
	return isWord(r)
}

func endsInWord(text []byte) bool {
	r, _ := utf8.DecodeLastRune(text)
	return isWord(r)
}

// isWord is \w as UTS #18 defines it: alphabetic characters, marks, decimal
// digits, connectors and joiners.
func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.Is(newLetters, r) ||
		unicode.In(r, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control))
}

// checkAdded returns an error where an added token cannot have the id that the
// file gives it.
func checkAdded(d *definition) error {
	ids := make(map[int32]string, len(d.AddedTokens))
	for i, a := range d.AddedTokens {
		if a.ID < 0 || a.ID >= maxID {
			return fmt.Errorf("added_tokens[%d].id: the id of %q is %d and must be between 0 and %d", i, a.Content, a.ID, maxID-1)
		}
		if id, ok := d.Model.Vocab[a.Content]; ok && id != a.ID {
			return fmt.Errorf("added_tokens[%d].id: %q is %d here and %d in model.vocab", i, a.Content, a.ID, id)
		}
		if before, ok := ids[a.ID]; ok && before != a.Content {
			return fmt.Errorf("added_tokens[%d].id: %q and %q have the same id %d", i, before, a.Content, a.ID)
		}
		ids[a.ID] = a.Content
	}
	for token, id := range d.Model.Vocab {
		if content, ok := ids[id]; ok && content != token {
			return fmt.Errorf("added_tokens: %q has the id %d, which is %q in model.vocab", content, id, token)
		}
	}
	return nil
}
