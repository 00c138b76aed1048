package dataset

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edsrzf/mmap-go"
)

// A piece holds the tokens of one large or several small source files. Pieces are what an interrupted preparation leaves to the next:
// each is named by a hash of all that it was made from, gets that name when it is whole, and ends with a checksum, so that nothing
// half-written is taken for whole even after a power failure. They go when the shards are finished.
//
// A file is the tokens in the shards' dtype, the counts as JSON, the length of that as uint32, and the SHA-256 of all before it.

const (
	// piecesDir is the folder, in the cache folder, of pieces.
	piecesDir = ".pieces"
	pieceExt  = ".piece"
	pieceTemp = ".tmp" // follows the name of a piece that is being written
	// pieceBytes is the size from which no further file joins a piece.
	pieceBytes = 1 << 20
	// pieceAge is how long a piece waits for the preparation to be taken up again.
	pieceAge = 30 * 24 * time.Hour
)

// group is the files of a piece, in the order in which they are packed.
type group struct {
	files []sourceFile
	bytes int64 // of the files
	path  string
	whole bool // the piece is there
}

// counts say what files came to.
type counts struct {
	Tokens    int64   `json:"tokens"`
	Bytes     int64   `json:"bytes"`
	Documents int64   `json:"documents"`
	Files     int64   `json:"files"` // that had text
	Skipped   Skipped `json:"skipped"`
}

// groupFiles cuts files into groups and looks up which pieces are there.
func groupFiles(dir string, files []sourceFile, c Config, r recipe) ([]*group, error) {
	var groups []*group
	for len(files) > 0 {
		g := &group{}
		for n, f := range files {
			if n > 0 && g.bytes+f.Size > pieceBytes {
				break
			}
			g.bytes += f.Size
			g.files = files[:n+1]
		}
		files = files[len(g.files):]
		key, err := pieceKey(g.files, c, r)
		if err != nil {
			return nil, err
		}
		g.path = filepath.Join(dir, key+pieceExt)
		if p, err := openPiece(g.path); err == nil {
			g.whole = true
			if err := p.Close(); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(g.path); err != nil { // damaged: it is made anew
				return nil, err
			}
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// pieceKey hashes what a piece is made from.
func pieceKey(files []sourceFile, c Config, r recipe) (string, error) {
	fraction := 0.0
	if files[0].Part != whole {
		fraction = c.ValidationFraction
	}
	data, err := json.Marshal(struct {
		recipe
		Fraction float64 // where it matters
		Files    []sourceFile
	}{r, fraction, files})
	if err != nil {
		return "", fmt.Errorf("fingerprinting the sources: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// pieceWriter writes a piece.
type pieceWriter struct {
	counts
	path  string
	dtype dtype
	file  *os.File
	buf   *bufio.Writer
	sum   hash.Hash
	out   io.Writer // buf and sum
	bytes []byte    // buffer
}

// newPieceWriter begins a piece. It is written under another name and without waiting for the disk.
func newPieceWriter(path string, d dtype) (*pieceWriter, error) {
	file, err := os.Create(path + pieceTemp)
	if err != nil {
		return nil, err
	}
	w := &pieceWriter{path: path, dtype: d, file: file, buf: bufio.NewWriterSize(file, 1<<16), sum: sha256.New()}
	w.out = io.MultiWriter(w.buf, w.sum)
	return w, nil
}

// add appends tokens.
func (w *pieceWriter) add(ids []int32) error {
	w.Tokens += int64(len(ids))
	w.bytes = appendTokens(w.bytes[:0], w.dtype, ids)
	_, err := w.out.Write(w.bytes)
	return err
}

// commit ends the piece and gives it its name.
func (w *pieceWriter) commit() error {
	trailer, err := json.Marshal(w.counts)
	if err == nil {
		_, err = w.out.Write(binary.LittleEndian.AppendUint32(trailer, uint32(len(trailer))))
	}
	if err == nil {
		_, err = w.buf.Write(w.sum.Sum(nil))
	}
	if err == nil {
		err = w.buf.Flush()
	}
	if err = errors.Join(err, w.file.Close()); err == nil {
		err = os.Rename(w.file.Name(), w.path)
	}
	if err != nil {
		os.Remove(w.file.Name())
	}
	return err
}

// abandon removes what was written.
func (w *pieceWriter) abandon() {
	w.file.Close()
	os.Remove(w.file.Name())
}

// piece is a mapped piece.
type piece struct {
	counts
	mapped mmap.MMap
	data   []byte // the tokens' bytes
}

// openPiece maps a piece and checks that it is whole.
func openPiece(path string) (*piece, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, errors.New("it is empty")
	}
	m, err := mmap.Map(file, mmap.RDONLY, 0)
	if err != nil {
		return nil, err
	}
	p := &piece{mapped: m}
	if err := p.parse(m); err != nil {
		return nil, errors.Join(fmt.Errorf("the piece %s: %w", path, err), m.Unmap())
	}
	return p, nil
}

// parse reads a whole piece.
func (p *piece) parse(data []byte) error {
	if len(data) < 4+sha256.Size {
		return errors.New("it is truncated")
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if got := sha256.Sum256(body); string(got[:]) != string(sum) {
		return errors.New("it differs from its checksum")
	}
	n := binary.LittleEndian.Uint32(body[len(body)-4:])
	body = body[:len(body)-4]
	if uint64(n) > uint64(len(body)) {
		return errors.New("it is damaged")
	}
	p.data = body[:len(body)-int(n)]
	return json.Unmarshal(body[len(body)-int(n):], &p.counts)
}

// Close unmaps the piece.
func (p *piece) Close() error { return p.mapped.Unmap() }

// removePieces deletes the pieces of groups, and their folder where no other preparation has left pieces there.
func removePieces(dir string, groups []*group) error {
	for _, g := range groups {
		if err := os.Remove(g.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	os.Remove(dir) // fails where it is not empty
	return nil
}

// removeOldPieces deletes what killed processes left unfinished, and the pieces that nobody has come back for.
func removeOldPieces(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if strings.HasSuffix(e.Name(), pieceTemp) || time.Since(info.ModTime()) > pieceAge {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
