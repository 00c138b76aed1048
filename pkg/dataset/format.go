package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// format is what a file holds.
type format int

const (
	formatText    format = iota // one document
	formatJSONL                 // one JSON object per line
	formatParquet               // a table
	formatPacked                // LITPKDS: tokens
)

// compression is what a file has to be unpacked with before it is read.
type compression int

const (
	uncompressed compression = iota
	gzipped
	zstandard
)

// maxZstdWindow is the window up to which `zstd` itself unpacks unless told otherwise; it is the memory that unpacking takes.
const maxZstdWindow = 128 << 20

// unreadable are extensions of containers that this version does not unpack. Their content may be text.
var unreadable = []string{".xz", ".bz2", ".lz4", ".br", ".zip", ".7z", ".rar", ".tar", ".tgz"}

// splitName returns the extension that says what a file holds, in lower case, and its compression.
func splitName(name string) (string, compression) {
	name = strings.ToLower(name)
	how := uncompressed
	switch filepath.Ext(name) {
	case ".gz":
		how, name = gzipped, strings.TrimSuffix(name, ".gz")
	case ".zst":
		how, name = zstandard, strings.TrimSuffix(name, ".zst")
	}
	return filepath.Ext(name), how
}

// unsupported returns why a file with this name cannot be read, "" where it can.
func unsupported(name string) string {
	ext, how := splitName(name)
	switch {
	case slices.Contains(unreadable, ext) && how == uncompressed:
		return fmt.Sprintf("%s files are not unpacked; unpack it, or pack its text with gzip or zstd", ext)
	case how != uncompressed && slices.Contains([]string{".parquet", ".bin", ".tar"}, ext):
		return fmt.Sprintf("%s files are read only as they are; unpack it", ext)
	}
	return ""
}

// unpack returns what r holds, unpacked, and what to call when it is no longer read.
func unpack(r *bufio.Reader, how compression) (*bufio.Reader, func(), error) {
	switch how {
	case gzipped:
		unpacked, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, explainUnpacking(err)
		}
		return bufio.NewReaderSize(unpacked, 1<<16), func() {}, nil
	case zstandard:
		unpacked, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, explainUnpacking(err)
		}
		return bufio.NewReaderSize(unpacked, 1<<16), unpacked.Close, nil
	}
	return r, func() {}, nil
}

// formatOf says what r, which is unpacked, holds, and gives all of it back. The name's extension decides where it can. A .json file
// (C4's are called .json.gz), and standard input, which has no name, hold records if their first line is a whole JSON object that
// has the field; a .bin file holds tokens if it begins as LITPKDS files do.
func formatOf(ext string, r *bufio.Reader, field string) (format, io.Reader, error) {
	nameless := ext == ""
	switch {
	case ext == ".jsonl" || ext == ".ndjson":
		return formatJSONL, r, nil
	case ext == ".parquet" || nameless && beginsWith(r, parquetMagic):
		return formatParquet, r, nil
	case (ext == ".bin" || nameless) && beginsWith(r, shardMagic):
		return formatPacked, r, nil
	case ext == ".json" || nameless:
		all, records, err := sniffRecords(r, field)
		if records {
			return formatJSONL, all, err
		}
		return formatText, all, err
	}
	return formatText, r, nil
}

func beginsWith(r *bufio.Reader, magic string) bool {
	head, _ := r.Peek(len(magic)) // what is shorter is something else
	return string(head) == magic
}

// compressionOf looks at the first bytes.
func compressionOf(r *bufio.Reader) compression {
	switch {
	case beginsWith(r, "\x1f\x8b"):
		return gzipped
	case beginsWith(r, "\x28\xb5\x2f\xfd"):
		return zstandard
	}
	return uncompressed
}

// maxSniff bounds the first line that is looked at; a longer one is text.
const maxSniff = 64 << 20

// sniffRecords reports whether the first line is a whole JSON object that has the field, and gives everything back.
func sniffRecords(r *bufio.Reader, field string) (io.Reader, bool, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == bufio.ErrBufferFull && len(line) <= maxSniff {
			continue
		}
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return nil, false, explainUnpacking(err)
		}
		break
	}
	head := bytes.TrimSpace(bytes.TrimPrefix(line, bom))
	_, err := textOf(head, field)
	return io.MultiReader(bytes.NewReader(line), r), err == nil && len(head) > 0, nil
}

// explainUnpacking adds a remedy to what reading compressed data can fail with.
func explainUnpacking(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("it ends too early (%w): it is truncated, copy it anew", err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: unpacking would take more than %d MiB; pack it again with at most zstd --long=27", err, maxZstdWindow>>20)
	}
	return fmt.Errorf("%w: it is damaged, copy it anew", err)
}

// counter counts what is read through it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	return n, err
}
