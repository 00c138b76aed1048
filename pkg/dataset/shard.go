package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A shard is a LITPKDS file as the reference implementation writes it
// (lit_gpt/packed_dataset.py): magic, version, dtype code, chunk length, then
// that many tokens, all little-endian. All shards of a split have one chunk
// length; the last one is filled up with the separator.
const (
	shardMagic   = "LITPKDS"
	shardVersion = 1
	headerSize   = 24

	// chunkTokens is the reference's chunk length.
	chunkTokens = 4097 * 1024
	// maxUint16Vocab is the vocabulary from which the reference uses int32.
	maxUint16Vocab = 65500
)

// dtype is how a token is stored; its value is the format's code.
type dtype uint8

const (
	dtypeInt32  dtype = 4
	dtypeUint16 dtype = 8
)

// size returns the bytes per token.
func (d dtype) size() int {
	if d == dtypeUint16 {
		return 2
	}
	return 4
}

func (d dtype) String() string {
	if d == dtypeUint16 {
		return "uint16"
	}
	return "int32"
}

// dtypeFor returns the dtype of a vocabulary.
func dtypeFor(vocab int) dtype {
	if vocab < maxUint16Vocab {
		return dtypeUint16
	}
	return dtypeInt32
}

// shardHeader is the head of a shard.
type shardHeader struct {
	dtype dtype
	chunk int64 // tokens
}

func (h shardHeader) bytes() []byte {
	b := append(make([]byte, 0, headerSize), shardMagic...)
	b = binary.LittleEndian.AppendUint64(b, shardVersion)
	b = append(b, byte(h.dtype))
	return binary.LittleEndian.AppendUint64(b, uint64(h.chunk))
}

// parseShard reads the header of a whole shard and returns it with the
// tokens' bytes.
func parseShard(data []byte) (shardHeader, []byte, error) {
	var h shardHeader
	if len(data) < headerSize {
		return h, nil, fmt.Errorf("it has %d bytes, less than a header: it is truncated or no %s file", len(data), shardMagic)
	}
	if string(data[:7]) != shardMagic {
		return h, nil, fmt.Errorf("it begins with %q: it is no %s file", data[:7], shardMagic)
	}
	if v := binary.LittleEndian.Uint64(data[7:]); v != shardVersion {
		return h, nil, fmt.Errorf("its format has version %d; this version reads only %d", v, shardVersion)
	}
	h.dtype = dtype(data[15])
	if h.dtype != dtypeInt32 && h.dtype != dtypeUint16 {
		return h, nil, fmt.Errorf("its dtype code is %d; this version reads only %d (int32) and %d (uint16)", data[15], dtypeInt32, dtypeUint16)
	}
	chunk := binary.LittleEndian.Uint64(data[16:])
	tokens := data[headerSize:]
	have := uint64(len(tokens)) / uint64(h.dtype.size())
	if chunk > have {
		return h, nil, fmt.Errorf("its header asks for %d tokens and %d are there: it is truncated", chunk, have)
	}
	if uint64(len(tokens)) != chunk*uint64(h.dtype.size()) {
		return h, nil, fmt.Errorf("its header asks for %d tokens and %d bytes follow them: it is damaged", chunk, uint64(len(tokens))-chunk*uint64(h.dtype.size()))
	}
	h.chunk = int64(chunk)
	return h, tokens, nil
}

// decodeTokens writes the tokens of data, from the token at offset on, to dst.
func decodeTokens(d dtype, data []byte, offset int64, dst []int32) {
	data = data[offset*int64(d.size()):]
	if d == dtypeUint16 {
		data = data[:2*len(dst)]
		for i := range dst {
			dst[i] = int32(binary.LittleEndian.Uint16(data[2*i:]))
		}
		return
	}
	data = data[:4*len(dst)]
	for i := range dst {
		dst[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
	}
}

// shardWriter packs tokens into the shards of one split.
type shardWriter struct {
	dir, split string
	dtype      dtype
	separator  int32
	chunk      int    // tokens per shard
	buf        []byte // header and tokens of the shard at hand
	files      []ShardInfo
	tokens     int64 // over all shards
}

func newShardWriter(dir, split string, vocab int, separator int32, chunk int) *shardWriter {
	return &shardWriter{dir: dir, split: split, dtype: dtypeFor(vocab), separator: separator, chunk: chunk}
}

// add appends tokens, writing every shard that becomes full.
func (w *shardWriter) add(ids []int32) error {
	for len(ids) > 0 {
		if w.pending() == w.chunk {
			if err := w.flush(w.chunk); err != nil {
				return err
			}
		}
		n := min(len(ids), w.chunk-w.pending())
		w.append(ids[:n])
		w.tokens += int64(n)
		ids = ids[n:]
	}
	return nil
}

// pending returns the tokens in the shard at hand.
func (w *shardWriter) pending() int {
	return max(0, len(w.buf)-headerSize) / w.dtype.size()
}

func (w *shardWriter) append(ids []int32) {
	if len(w.buf) == 0 {
		w.buf = append(w.buf, make([]byte, headerSize)...)
	}
	w.buf = appendTokens(w.buf, w.dtype, ids)
}

// appendTokens appends the bytes of tokens.
func appendTokens(b []byte, d dtype, ids []int32) []byte {
	for _, id := range ids {
		if d == dtypeUint16 {
			b = binary.LittleEndian.AppendUint16(b, uint16(id))
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		}
	}
	return b
}

// close writes the last shard, filled up with the separator. A split of one
// shard is no longer than it needs to be, rounded up to a KiB of tokens, so
// that a small text makes a small file.
func (w *shardWriter) close() error {
	n := w.pending()
	if n == 0 {
		return nil
	}
	chunk := w.chunk
	if len(w.files) == 0 {
		chunk = min(chunk, (n+1023)/1024*1024)
	}
	return w.flush(chunk)
}

// flush writes the shard at hand with the given chunk length and makes it
// durable.
func (w *shardWriter) flush(chunk int) (err error) {
	n := w.pending()
	for w.pending() < chunk {
		w.append([]int32{w.separator})
	}
	copy(w.buf, shardHeader{w.dtype, int64(chunk)}.bytes())
	name := fmt.Sprintf("%s_%010d.bin", w.split, len(w.files))
	if err := writeSynced(filepath.Join(w.dir, name), w.buf); err != nil {
		return err
	}
	sum := sha256.Sum256(w.buf)
	w.files = append(w.files, ShardInfo{Name: name, Tokens: int64(n), SHA256: hex.EncodeToString(sum[:])})
	w.buf = w.buf[:0]
	return nil
}

// writeSynced writes a new file and waits until it is on the disk.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
