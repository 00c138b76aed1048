package tokenizer

import (
	"fmt"
	"unicode/utf8"
)

// model is a BPE vocabulary with its merges. A word is first a row of symbols,
// one per byte (byte-level vocabularies) or per character (the others), and
// then the pair of neighbours that comes first in the list of merges becomes
// one symbol, of equal pairs the leftmost, until no neighbours are in the list.
type model struct {
	byteLevel    bool
	ignoreMerges bool // a word that is in the vocabulary is one token, whatever the merges say
	vocab        map[string]int32
	longest      int // bytes of the longest entry of vocab

	byteID  [256]int32 // symbol of a byte, or -1: byte-level entries, or those of byte fallback
	ascii   [utf8.RuneSelf]int32
	unkID   int32 // symbol of what is not in the vocabulary, or -1
	fuseUnk bool

	merges pairTable
	merged []int32 // by rank: the token that the pair becomes

	// cuts says that a word may be cut between two symbols that no merge joins,
	// because what is on one side cannot change what happens on the other.
	cuts  bool
	joins joinTable
}

const (
	noRank = 1<<32 - 1
	// maxID bounds the tables that have an entry for every id.
	maxID = 1 << 21
)

func newModel(d *modelDefinition, byteLevel bool) (*model, error) {
	if err := d.supported(); err != nil {
		return nil, err
	}
	m := &model{byteLevel: byteLevel, ignoreMerges: d.IgnoreMerges, fuseUnk: d.FuseUnk, unkID: -1, vocab: make(map[string]int32, len(d.Vocab))}
	owner := make(map[int32]string, len(d.Vocab))
	table := characterBytes()
	for token, id := range d.Vocab {
		if id < 0 || id >= maxID {
			return nil, fmt.Errorf("model.vocab: the id of %q is %d and must be between 0 and %d", token, id, maxID-1)
		}
		if before, ok := owner[id]; ok {
			return nil, fmt.Errorf("model.vocab: %q and %q have the same id %d", min(before, token), max(before, token), id)
		}
		owner[id] = token
		if byteLevel {
			raw, ok := rawBytes(token, table)
			if !ok {
				continue // an entry that no text can reach, such as an added token with a blank in it
			}
			token = raw
		}
		m.vocab[token] = id
		m.longest = max(m.longest, len(token))
	}
	if d.UnkToken != nil {
		id, ok := d.Vocab[*d.UnkToken]
		if !ok {
			return nil, fmt.Errorf("model.unk_token: %q is not in model.vocab", *d.UnkToken)
		}
		m.unkID = id
	}
	whole := m.bytes(d)
	if byteLevel && d.ByteFallback && !whole {
		return nil, fmt.Errorf("model.byte_fallback: it is not supported with ByteLevel where the vocabulary lacks bytes")
	}
	if err := m.addMerges(d, table); err != nil {
		return nil, err
	}
	m.cuts = whole && m.symbolsApart(d)
	return m, nil
}

// bytes fills the tables of first symbols. It reports whether every byte has a
// symbol.
func (m *model) bytes(d *modelDefinition) bool {
	whole := true
	for b := range m.byteID {
		key := string([]byte{byte(b)})
		if !m.byteLevel {
			key = fmt.Sprintf("<0x%02X>", b)
		}
		id, ok := m.vocab[key]
		if !ok || !m.byteLevel && !d.ByteFallback {
			id, whole = -1, false
		}
		m.byteID[b] = id
	}
	for b := range m.ascii {
		id, ok := m.vocab[string([]byte{byte(b)})]
		if !ok {
			id = -1
		}
		m.ascii[b] = id
	}
	return whole
}

func (m *model) addMerges(d *modelDefinition, table map[rune]byte) error {
	m.merges = newPairTable(len(d.Merges))
	m.merged = make([]int32, len(d.Merges))
	for rank, p := range d.Merges {
		left, right := p[0], p[1]
		joined, ok := d.Vocab[left+right]
		a, okA := d.Vocab[left]
		b, okB := d.Vocab[right]
		for _, missing := range []struct {
			token string
			ok    bool
		}{{left, okA}, {right, okB}, {left + right, ok}} {
			if !missing.ok || missing.token == "" {
				return fmt.Errorf("model.merges[%d]: %q is not in model.vocab", rank, missing.token)
			}
		}
		if left == "" || right == "" {
			return fmt.Errorf("model.merges[%d]: an empty token", rank)
		}
		if m.byteLevel {
			if left, ok = rawBytes(left, table); ok {
				right, ok = rawBytes(right, table)
			}
			if !ok {
				continue // of characters that stand for no byte
			}
		}
		m.merges.put(a, b, uint32(rank))
		m.merged[rank] = joined
		m.joins.add(m, left, right)
	}
	return nil
}

// symbolsApart reports whether every symbol that takes part in merges is a
// string of the vocabulary that stands for just that string.
func (m *model) symbolsApart(d *modelDefinition) bool {
	if m.byteLevel {
		return true
	}
	for _, p := range d.Merges {
		for _, token := range p {
			if _, ok := byteToken(token); ok {
				return false
			}
		}
	}
	return true
}

// symbol returns the size of the first symbol of word, which is not empty, and
// its id; -1 where only byte fallback or the unknown token can stand for it.
func (m *model) symbol(word []byte) (id int32, size int) {
	b := word[0]
	if m.byteLevel {
		return m.byteID[b], 1
	}
	if b < utf8.RuneSelf {
		return m.ascii[b], 1
	}
	_, size = utf8.DecodeRune(word)
	if size == 1 {
		return -1, 1
	}
	if id, ok := m.vocab[string(word[:size])]; ok {
		return id, size
	}
	return -1, size
}

// joinTable holds which two characters (or bytes) stand on the two sides of a
// merge: neighbours that are not in it are never in one token.
type joinTable struct {
	near [256][256]bool // bytes, or the characters that nearby knows
	far  map[[2]rune]struct{}
}

// nearby returns a small number for the most frequent characters, ASCII and
// SentencePiece's blank, and -1 for others.
func nearby(r rune) int {
	if r < utf8.RuneSelf {
		return int(r) // -1 for a byte that is no UTF-8
	}
	if r == '\u2581' {
		return utf8.RuneSelf
	}
	return -1
}

func (j *joinTable) add(m *model, left, right string) {
	if m.byteLevel {
		j.near[left[len(left)-1]][right[0]] = true
		return
	}
	a, _ := utf8.DecodeLastRuneInString(left)
	b, _ := utf8.DecodeRuneInString(right)
	if x, y := nearby(a), nearby(b); x >= 0 && y >= 0 {
		j.near[x][y] = true
		return
	}
	if j.far == nil {
		j.far = make(map[[2]rune]struct{})
	}
	j.far[[2]rune{a, b}] = struct{}{}
}

// cut returns the length of the part of word, which is not empty, up to the
// first place where no merge can join what is on its two sides.
func (m *model) cut(word []byte) int {
	if !m.cuts {
		return len(word)
	}
	if m.byteLevel {
		for i := 1; i < len(word); i++ {
			if !m.joins.near[word[i-1]][word[i]] {
				return i
			}
		}
		return len(word)
	}
	last, n := decodeRune(word)
	for n < len(word) {
		r, size := decodeRune(word[n:])
		if x, y := nearby(last), nearby(r); x >= 0 && y >= 0 {
			if !m.joins.near[x][y] {
				return n
			}
		} else if _, ok := m.joins.far[[2]rune{last, r}]; !ok {
			return n
		}
		last = r
		n += size
	}
	return n
}

// decodeRune returns -1 for a byte that is no UTF-8.
func decodeRune(text []byte) (rune, int) {
	if text[0] < utf8.RuneSelf {
		return rune(text[0]), 1
	}
	r, n := utf8.DecodeRune(text)
	if n == 1 {
		return -1, 1
	}
	return r, n
}

// pairTable maps two neighbouring tokens to the rank of their merge. It is a
// hash table with open addressing: the innermost loop looks pairs up. Most
// neighbours have no merge, which filter, small enough for the processor's
// caches, mostly knows: its bit is set for every pair that has one.
type pairTable struct {
	places      []pairPlace
	filter      []uint64
	shift       uint // of a pair's hash, for its place
	filterShift uint // and for its bit
}

type pairPlace struct {
	key  uint64 // of the pair; 0 where the place is free
	rank uint32
}

func newPairTable(n int) pairTable {
	bits := uint(4)
	for 1<<bits < n+n/2 {
		bits++
	}
	filter := max(bits+3, 6)
	return pairTable{
		places: make([]pairPlace, 1<<bits), shift: 64 - bits,
		filter: make([]uint64, 1<<(filter-6)), filterShift: 64 - filter,
	}
}

func pairKey(a, b int32) uint64 { return (uint64(uint32(a))<<32 | uint64(uint32(b))) + 1 }

func pairHash(key uint64) uint64 { return key * 0x9E3779B97F4A7C15 }

// place returns where the pair is, or would be.
func (t *pairTable) place(key uint64) *pairPlace {
	i := int(pairHash(key) >> t.shift)
	for {
		p := &t.places[i]
		if p.key == key || p.key == 0 {
			return p
		}
		if i++; i == len(t.places) {
			i = 0
		}
	}
}

// put sets the rank of a pair; a later rank takes the place of an earlier one.
func (t *pairTable) put(a, b int32, rank uint32) {
	key := pairKey(a, b)
	*t.place(key) = pairPlace{key, rank}
	bit := pairHash(key) >> t.filterShift
	t.filter[bit/64] |= 1 << (bit % 64)
}

// rank returns the rank of a pair, or noRank.
func (t *pairTable) rank(a, b int32) uint32 {
	key := pairKey(a, b)
	bit := pairHash(key) >> t.filterShift
	if t.filter[bit/64]>>(bit%64)&1 == 0 {
		return noRank
	}
	if p := t.place(key); p.key != 0 {
		return p.rank
	}
	return noRank
}
