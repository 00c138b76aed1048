package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/edsrzf/mmap-go"
)

// Stream is a split's documents, one after the other, as one sequence of
// tokens, memory-mapped. It may be read by several goroutines at once.
type Stream struct {
	Index *Index
	Info  *SplitInfo
	Name  string // the split
	Dir   string

	shards []shard
}

// shard is a mapped file.
type shard struct {
	path   string
	mapped mmap.MMap
	data   []byte // the tokens' bytes
	dtype  dtype
	start  int64 // of its first token in the stream
}

// OpenStream maps a split of the prepared folder dir. It checks every file's
// header and size; what the tokens are is checked as they are read.
func OpenStream(dir, split string) (*Stream, error) {
	x, err := ReadIndex(dir)
	if err != nil {
		return nil, err
	}
	return openStream(dir, split, x)
}

func openStream(dir, split string, x *Index) (*Stream, error) {
	info, err := x.Split(split)
	if err != nil {
		return nil, err
	}
	s := &Stream{Index: x, Info: info, Name: split, Dir: dir}
	start := int64(0)
	for _, f := range info.Shards {
		sh, err := openShard(filepath.Join(dir, f.Name), f.Tokens)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("opening shard %s: %w; delete the folder %s and prepare the data again", filepath.Join(dir, f.Name), err, dir)
		}
		sh.start = start
		start += f.Tokens
		s.shards = append(s.shards, sh)
	}
	return s, nil
}

// openShard maps a file that holds at least the given number of tokens.
func openShard(path string, tokens int64) (shard, error) {
	f, err := os.Open(path)
	if err != nil {
		return shard{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return shard{}, err
	}
	if info.Size() == 0 {
		return shard{}, errors.New("it is empty") // and cannot be mapped
	}
	m, err := mmap.Map(f, mmap.RDONLY, 0)
	if err != nil {
		return shard{}, fmt.Errorf("mapping it into memory: %w", err)
	}
	h, data, err := parseShard(m)
	if err == nil && h.chunk < tokens {
		err = fmt.Errorf("it holds %d tokens where the index asks for %d: they do not belong together", h.chunk, tokens)
	}
	if err != nil {
		return shard{}, errors.Join(err, m.Unmap())
	}
	return shard{path: path, mapped: m, data: data, dtype: h.dtype}, nil
}

// Len returns the tokens of the split.
func (s *Stream) Len() int64 { return s.Info.Tokens }

// Read fills dst with the tokens from start on. A token beyond the vocabulary
// is an error that names the file and what to do.
func (s *Stream) Read(start int64, dst []int32) error {
	if len(s.shards) == 0 {
		return errors.New("reading tokens: the stream is closed")
	}
	if start < 0 || start > s.Len()-int64(len(dst)) {
		return fmt.Errorf("reading tokens %d to %d of the %s split: it has %d", start, start+int64(len(dst)), s.Name, s.Len())
	}
	for at := sort.Search(len(s.shards), func(i int) bool { return s.shards[i].start > start }) - 1; len(dst) > 0; at++ {
		sh, offset := s.shards[at], start-s.shards[at].start
		n := int(min(int64(len(dst)), s.Info.Shards[at].Tokens-offset))
		decodeTokens(sh.dtype, sh.data, offset, dst[:n])
		for i, id := range dst[:n] {
			if uint32(id) >= uint32(s.Index.Vocab) {
				return fmt.Errorf("shard %s: token %d has id %d, beyond the vocabulary of %d: the file is damaged or was made with another tokenizer; delete the folder %s and prepare the data again",
					sh.path, offset+int64(i), id, s.Index.Vocab, s.Dir)
			}
		}
		dst, start = dst[n:], start+int64(n)
	}
	return nil
}

// Tokens reads the tokens from start on into dst and returns how many there
// were: fewer than len(dst) only at the end of the split, where io.EOF comes
// with 0.
func (s *Stream) Tokens(start int64, dst []int32) (int, error) {
	n := int(min(int64(len(dst)), max(0, s.Len()-start)))
	if n == 0 && len(dst) > 0 {
		return 0, io.EOF
	}
	return n, s.Read(start, dst[:n])
}

// Verify compares every shard with its checksum.
func (s *Stream) Verify(ctx context.Context) error {
	for i, sh := range s.shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		sum := sha256.Sum256(sh.mapped)
		if hex.EncodeToString(sum[:]) != s.Info.Shards[i].SHA256 {
			return fmt.Errorf("shard %s differs from its checksum: it is damaged; delete the folder %s and prepare the data again", sh.path, s.Dir)
		}
	}
	return nil
}

// Close unmaps the files. Nothing may be read afterwards.
func (s *Stream) Close() error {
	var errs []error
	for _, sh := range s.shards {
		errs = append(errs, sh.mapped.Unmap())
	}
	s.shards = nil
	return errors.Join(errs...)
}
