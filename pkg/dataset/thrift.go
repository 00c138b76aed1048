package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/parquet-go/parquet-go/encoding/thrift"
)

// errThriftEnds says that a structure goes on after the bytes at hand.
var errThriftEnds = errors.New("it ends in the middle of a structure")

// decodeThrift decodes the structure at the beginning of data, in Thrift's compact protocol, and returns its length. The structure is
// walked first: the decoder trusts the sizes that it reads, and a few bytes of a damaged file could make it take all memory.
func decodeThrift(data []byte, v any) (int, error) {
	w := thriftWalker{data: data}
	if err := w.structure(0); err != nil {
		return 0, err
	}
	return w.at, thrift.Unmarshal(new(thrift.CompactProtocol), data[:w.at], v)
}

// maxThriftDepth is far above what Parquet nests.
const maxThriftDepth = 32

// minThriftElement is the size of the smallest structure of which Parquet has lists, a ColumnOrder.
const minThriftElement = 3

// thriftWalker checks that sizes are backed by bytes and that nesting has an end.
type thriftWalker struct {
	data []byte
	at   int
}

func (w *thriftWalker) byte() (byte, error) {
	if w.at >= len(w.data) {
		return 0, errThriftEnds
	}
	w.at++
	return w.data[w.at-1], nil
}

func (w *thriftWalker) varint() (uint64, error) {
	v, n := binary.Uvarint(w.data[w.at:])
	if n == 0 {
		return 0, errThriftEnds
	}
	if n < 0 {
		return 0, errors.New("a number in it has more than 64 bits")
	}
	w.at += n
	return v, nil
}

// skip passes n bytes.
func (w *thriftWalker) skip(n uint64) error {
	if n > uint64(len(w.data)-w.at) {
		return errThriftEnds
	}
	w.at += int(n)
	return nil
}

func (w *thriftWalker) structure(depth int) error {
	if depth > maxThriftDepth {
		return fmt.Errorf("its structures are nested more than %d deep", maxThriftDepth)
	}
	for {
		b, err := w.byte()
		if err != nil || b == byte(thrift.STOP) {
			return err
		}
		if b>>4 == 0 { // else the field's number is relative to the one before
			if _, err := w.varint(); err != nil {
				return err
			}
		}
		kind := thrift.Type(b & 0xf)
		if kind == thrift.TRUE || kind == thrift.BOOL { // the value is in the type
			continue
		}
		if err := w.value(kind, depth); err != nil {
			return err
		}
	}
}

// value passes a value that is no boolean field.
func (w *thriftWalker) value(kind thrift.Type, depth int) error {
	switch kind {
	case thrift.TRUE, thrift.BOOL, thrift.I8:
		return w.skip(1)
	case thrift.I16, thrift.I32, thrift.I64:
		_, err := w.varint()
		return err
	case thrift.DOUBLE:
		return w.skip(8)
	case thrift.BINARY:
		n, err := w.varint()
		if err != nil {
			return err
		}
		return w.skip(n)
	case thrift.LIST, thrift.SET:
		return w.list(depth + 1)
	case thrift.STRUCT:
		return w.structure(depth + 1)
	}
	return fmt.Errorf("it holds a value of type %d, which Parquet has not", kind)
}

func (w *thriftWalker) list(depth int) error {
	if depth > maxThriftDepth {
		return fmt.Errorf("its lists are nested more than %d deep", maxThriftDepth)
	}
	b, err := w.byte()
	if err != nil {
		return err
	}
	n := uint64(b >> 4)
	if n == 0xf {
		if n, err = w.varint(); err != nil {
			return err
		}
	}
	if n > uint64(len(w.data)-w.at) {
		return errThriftEnds // every element takes a byte
	}
	kind, start := thrift.Type(b&0xf), w.at
	for range n {
		if err := w.value(kind, depth); err != nil {
			return err
		}
	}
	if kind == thrift.STRUCT && uint64(w.at-start) < n*minThriftElement {
		return errors.New("it holds a list of empty structures")
	}
	return nil
}
