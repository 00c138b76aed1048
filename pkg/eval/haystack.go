package eval

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"meap/internal/runes"
)

// Haystack is the text that a needle is hidden in: files joined in a fixed
// order and repeated until there is enough.
type Haystack struct {
	Source string   // what the user named
	Seed   uint64   // 0: files by name; otherwise a permutation drawn from it
	Files  []string // in the order of joining
}

// FindHaystack lists the files under path, which is one file or a folder that
// is searched recursively. Hidden files and folders and links to folders are left
// out. Seed 0 sorts
// by name; another one shuffles, so that a grid can be repeated over other text.
func FindHaystack(path string, seed uint64) (*Haystack, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("--haystack %s: %w; give a text file or a folder of text files", path, err)
	}
	if !info.IsDir() {
		return NewHaystack(path, []string{path}, seed), nil
	}
	var files []string
	root, err := filepath.EvalSymlinks(path) // WalkDir does not enter a link
	if err != nil {
		return nil, fmt.Errorf("--haystack %s: %w", path, err)
	}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != root && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			files = append(files, p)
		case d.Type()&fs.ModeSymlink != 0:
			if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
				files = append(files, p)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("--haystack %s: %w", path, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("--haystack %s: the folder holds no files; give a text file or a folder of text files", path)
	}
	return NewHaystack(path, files, seed), nil // WalkDir has visited them in lexical order
}

// NewHaystack returns the text of files in the order given, or in one that a seed other than 0 shuffles; source says to people what they
// are.
func NewHaystack(source string, files []string, seed uint64) *Haystack {
	h := &Haystack{Source: source, Seed: seed, Files: slices.Clone(files)}
	if seed != 0 {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(h.Files), func(i, j int) {
			h.Files[i], h.Files[j] = h.Files[j], h.Files[i]
		})
	}
	return h
}

// beyond is how much of a file is read beyond what is needed of it: a cut in
// the middle of the text must not change the tokens that are used.
const beyond = 1 << 16

// Text returns at least size bytes. It reads no more files than needed, nor
// much more of a large one, leaves out those that are not text (invalid UTF-8,
// or a zero byte), and separates the others by a blank line.
func (h *Haystack) Text(size int) ([]byte, error) {
	var text []byte
	add := func(part []byte) {
		if len(text) > 0 {
			text = append(text, "\n\n"...)
		}
		text = append(text, part...)
	}
	for _, name := range h.Files {
		if len(text) >= size {
			return text, nil
		}
		data, err := readStart(name, size-len(text)+beyond)
		if err != nil {
			return nil, fmt.Errorf("--haystack: %w", err)
		}
		data = bytes.TrimSpace(data)
		if len(data) == 0 || !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
			continue
		}
		add(data)
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("--haystack %s: no file there holds text in UTF-8; give a text file or a folder of text files", h.Source)
	}
	for once := text[:len(text):len(text)]; len(text) < size; {
		add(once)
	}
	return text, nil
}

// readStart returns a file's first size bytes, without the character that is
// cut there, or all where there are fewer.
func readStart(name string, size int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(size)))
	if err != nil || len(data) < size {
		return data, err
	}
	return runes.Whole(data), nil
}

// Boundary is the kind of place where a needle may stand.
type Boundary string

// BoundaryAuto chooses the first of the others that the haystack has often
// enough: sentences in prose, lines in source code, see [boundaryReach].
const (
	BoundaryAuto     Boundary = "auto"
	BoundarySentence Boundary = "sentence" // after the end of a sentence
	BoundaryLine     Boundary = "line"     // after the end of a line
	BoundaryToken    Boundary = "token"    // after any token
)

// boundaryReach is how far, in bytes, the walk back from a random place to a
// boundary may be for nine places in ten. English prose needs about 200 for a
// sentence. Source code has sentences too, in its comments, but far apart:
// walking back to one would put most needles at the same few depths. The same
// happens with prose in a document of a few hundred bytes, so the walk should
// also be no longer than boundaryShare of the shortest document; where neither
// sentences nor lines are that dense, the denser are taken.
const (
	boundaryReach = 400
	boundaryShare = 0.25
)

// boundaryContext is how many tokens on either side are decoded to judge a
// place: enough for a full stop, a closing quote and the blanks of an indented
// line in single bytes.
const boundaryContext = 24

// boundaries returns the positions p, ascending, where ids may be cut so that
// the text before p ends a sentence or a line. It looks at decoded text, not at
// ids, because a full stop is part of many pieces and has other ids alone than
// within a text.
func boundaries(tok Tokenizer, ids []int32, kind Boundary) []int {
	var cuts []int
	for p := 1; p < len(ids); p++ {
		lo, hi := max(0, p-boundaryContext), min(len(ids), p+boundaryContext)
		before, all := tok.Decode(ids[lo:p]), tok.Decode(ids[lo:hi])
		if !bytes.HasPrefix(all, before) {
			continue // p is inside a character
		}
		if endsAt(before, all[len(before):], kind) {
			cuts = append(cuts, p)
		}
	}
	return cuts
}

// endsAt tells whether a sentence or line ends between before and after.
func endsAt(before, after []byte, kind Boundary) bool {
	if r, size := utf8.DecodeRune(after); r == utf8.RuneError && size == 1 {
		return false // inside a character
	}
	switch kind {
	case BoundaryLine:
		return bytes.HasSuffix(before, []byte("\n"))
	case BoundarySentence:
		trimmed := bytes.TrimRightFunc(before, unicode.IsSpace)
		blank := len(trimmed) < len(before)
		if !blank {
			r, _ := utf8.DecodeRune(after)
			blank = len(after) == 0 || unicode.IsSpace(r)
		}
		trimmed = bytes.TrimRight(trimmed, "\"')]}*_”’»")
		last, _ := utf8.DecodeLastRune(trimmed)
		switch last {
		case '.', '!', '?', '…':
			return blank // not the point in 3.14 or in fmt.Println
		case '。', '！', '？', '．':
			return true // written without a blank after them
		}
	}
	return false
}

// chooseBoundary returns the kind to use for ids and its cuts (nil for any
// token). bytesPerToken turns distances in tokens into bytes; shortest is the
// shortest document in tokens.
func chooseBoundary(tok Tokenizer, ids []int32, want Boundary, bytesPerToken float64, shortest int) (Boundary, []int, error) {
	switch want {
	case BoundaryToken:
		return want, nil, nil
	case BoundarySentence, BoundaryLine:
		cuts := boundaries(tok, ids, want)
		if len(cuts) == 0 {
			return "", nil, fmt.Errorf("--boundary %s: the haystack has none; use --boundary auto", want)
		}
		return want, cuts, nil
	case BoundaryAuto, "":
	default:
		return "", nil, fmt.Errorf("--boundary %s: one of auto, sentence, line, token", want)
	}
	best, bestCuts, bestWalk := BoundaryToken, []int(nil), math.Inf(1)
	for _, kind := range []Boundary{BoundarySentence, BoundaryLine} {
		cuts := boundaries(tok, ids, kind)
		walk := float64(walkBack(cuts, len(ids), 0.9))
		if walk*bytesPerToken > boundaryReach || walk >= bestWalk {
			continue
		}
		best, bestCuts, bestWalk = kind, cuts, walk
		if walk <= boundaryShare*float64(shortest) {
			break
		}
	}
	return best, bestCuts, nil
}

// walkBack returns the q-quantile, over all positions 0..n-1, of the distance
// back to the nearest cut or to the start.
func walkBack(cuts []int, n int, q float64) int {
	dist := make([]int, n)
	last, next := 0, 0
	for p := range dist {
		if next < len(cuts) && cuts[next] == p {
			last = p
			next++
		}
		dist[p] = p - last
	}
	slices.Sort(dist)
	return dist[int(q*float64(n-1))]
}
