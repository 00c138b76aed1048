package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	pq "github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// plainDictionary is what the first version of the format called RLE_DICTIONARY in data pages, and PLAIN in dictionary pages.
const plainDictionary pq.Encoding = 2

// pageUnpacker unpacks pages into one buffer, which grows with what is there and not with what a header says.
type pageUnpacker struct {
	buf  []byte
	zstd *zstd.Decoder
	gzip *gzip.Reader
}

func (u *pageUnpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}

// unpack returns the size bytes that data holds, valid until the next call.
func (u *pageUnpacker) unpack(codec pq.CompressionCodec, data []byte, size int) ([]byte, error) {
	if codec == pq.Uncompressed {
		return data, nil
	}
	if size == 0 {
		return nil, nil
	}
	var r io.Reader
	switch codec {
	case pq.Snappy:
		// Its densest element copies 64 bytes by 3.
		if n, err := snappy.DecodedLen(data); err != nil || n != size || size/32 > len(data) {
			return nil, fmt.Errorf("unpacking snappy: %d bytes cannot hold %d", len(data), size)
		}
		u.buf = resize(u.buf, size)
		out, err := snappy.Decode(u.buf, data)
		return out, wrapUnpacking("snappy", err)
	case pq.Lz4Raw:
		// Every byte of a length stands for at most 255.
		if size/256 > len(data) {
			return nil, fmt.Errorf("unpacking lz4: %d bytes cannot hold %d", len(data), size)
		}
		u.buf = resize(u.buf, size)
		n, err := lz4.UncompressBlock(data, u.buf)
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes, not %d", n, size)
		}
		return u.buf, wrapUnpacking("lz4", err)
	case pq.Gzip:
		var err error
		if u.gzip == nil {
			u.gzip, err = gzip.NewReader(bytes.NewReader(data))
		} else {
			err = u.gzip.Reset(bytes.NewReader(data))
		}
		if err != nil {
			u.gzip = nil
			return nil, wrapUnpacking("gzip", err)
		}
		r = u.gzip
	case pq.Zstd:
		var err error
		if u.zstd == nil {
			u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		}
		if err == nil {
			err = u.zstd.Reset(bytes.NewReader(data))
		}
		if err != nil {
			return nil, wrapUnpacking("zstd", err)
		}
		r = u.zstd
	case pq.Brotli:
		r = brotli.NewReader(bytes.NewReader(data))
	default:
		return nil, fmt.Errorf("it is packed with %v, which is not read", codec)
	}
	out, err := u.fill(r, size)
	return out, wrapUnpacking(codec.String(), err)
}

func wrapUnpacking(name string, err error) error {
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	return nil
}

// fill reads size bytes from r, which has to end there.
func (u *pageUnpacker) fill(r io.Reader, size int) ([]byte, error) {
	for n := 0; ; {
		if n == cap(u.buf) {
			u.buf = append(u.buf[:n], make([]byte, min(size-n, max(n, 1<<16)))...)
		}
		m, err := io.ReadFull(r, u.buf[n:min(size, cap(u.buf))])
		if n += m; err != nil {
			return nil, err
		}
		if n < size {
			continue
		}
		var more [1]byte
		if m, err := io.ReadFull(r, more[:]); m > 0 {
			return nil, fmt.Errorf("it holds more than %d bytes", size)
		} else if err != io.EOF {
			return nil, err
		}
		return u.buf[:size], nil
	}
}

// hybrid reads numbers of a fixed width in runs of equal ones and bit-packed groups of eight (Encodings.md, RLE).
type hybrid struct {
	data  []byte
	width uint // bits, at most 32

	left   int64  // numbers in the run at hand
	packed bool   // it is bit-packed
	value  uint32 // what it repeats, if not
	bits   uint64 // read and not yet used
	have   uint   // their number
}

var errLevelsEnd = errors.New("the numbers end too early")

// run returns the next number and how often it follows at once, at most n times.
func (h *hybrid) run(n int64) (uint32, int64, error) {
	for h.left == 0 {
		header, m := binary.Uvarint(h.data)
		if m <= 0 {
			return 0, 0, errLevelsEnd
		}
		h.data = h.data[m:]
		if h.packed = header&1 == 1; h.packed {
			h.left = int64(min(header>>1, maxParquetValues)) * 8
			h.bits, h.have = 0, 0
			continue
		}
		h.left = int64(min(header>>1, 1<<40))
		size := int(h.width+7) / 8
		if size > len(h.data) {
			return 0, 0, errLevelsEnd
		}
		h.value = 0
		for i := range size {
			h.value |= uint32(h.data[i]) << (8 * i)
		}
		h.data = h.data[size:]
	}
	if !h.packed {
		n = min(n, h.left)
		h.left -= n
		return h.value, n, nil
	}
	for h.have < h.width {
		if len(h.data) == 0 {
			return 0, 0, errLevelsEnd
		}
		h.bits |= uint64(h.data[0]) << h.have
		h.have += 8
		h.data = h.data[1:]
	}
	v := uint32(h.bits & (1<<h.width - 1))
	h.bits >>= h.width
	h.have -= h.width
	if h.left--; h.left == 0 {
		h.bits, h.have = 0, 0
	}
	return v, 1, nil
}

// presence says which values of a page are there and which are null. The zero value says that all are there.
type presence struct {
	hybrid
	level uint32 // of a value that is there
}

func newPresence(data []byte, level int) presence {
	width := uint(0)
	for level>>width > 0 {
		width++
	}
	return presence{hybrid{data: data, width: width}, uint32(level)}
}

// take returns how many of the next n values, n > 0, are equally there or not.
func (p *presence) take(n int64) (present bool, run int64, err error) {
	if p.level == 0 {
		return true, n, nil
	}
	v, run, err := p.run(n)
	return v == p.level, run, err
}

// textValues gives the values of a page that are not null, one after the other, each valid until the next.
type textValues interface {
	next() ([]byte, error)
}

var errValuesEnd = errors.New("the page ends in the middle of its values")

// decode returns the values of a page.
func (d *dataPage) decode(dictionary *dictionary) (textValues, error) {
	switch d.encoding {
	case pq.Plain:
		return &plainValues{d.data}, nil
	case plainDictionary, pq.RLEDictionary:
		if dictionary == nil {
			return nil, errors.New("a page refers to a dictionary that is not there; the file is damaged, copy it anew")
		}
		if len(d.data) == 0 {
			return &dictionaryValues{}, nil // all are null
		}
		if d.data[0] > 32 {
			return nil, fmt.Errorf("a page has dictionary indexes of %d bits; the file is damaged, copy it anew", d.data[0])
		}
		return &dictionaryValues{dictionary, hybrid{data: d.data[1:], width: uint(d.data[0])}}, nil
	case pq.DeltaLengthByteArray:
		return newDeltaLengthValues(d.data)
	case pq.DeltaByteArray:
		prefixes, rest, err := newDeltas(d.data)
		if err != nil {
			return nil, err
		}
		suffixes, err := newDeltaLengthValues(rest)
		if err != nil {
			return nil, err
		}
		return &deltaValues{prefixes: prefixes, suffixes: suffixes}, nil
	}
	return nil, fmt.Errorf("a page is encoded as %v, which is not read; write the file with another encoding", d.encoding)
}

// plainValues are strings after their lengths.
type plainValues struct{ data []byte }

func (p *plainValues) next() ([]byte, error) {
	if len(p.data) < 4 {
		return nil, errValuesEnd
	}
	n := binary.LittleEndian.Uint32(p.data)
	if uint64(n) > uint64(len(p.data)-4) {
		return nil, errValuesEnd
	}
	text := p.data[4 : 4+n]
	p.data = p.data[4+n:]
	return text, nil
}

// dictionary holds the values that pages refer to.
type dictionary struct {
	data []byte   // strings after their lengths
	at   []uint32 // where each begins
}

// newDictionary copies a dictionary page.
func newDictionary(data []byte, h parquetDictionaryHeader) (*dictionary, error) {
	if h.Encoding != pq.Plain && h.Encoding != plainDictionary {
		return nil, fmt.Errorf("its dictionary is encoded as %v, which is not read", h.Encoding)
	}
	if h.Values < 0 || int64(h.Values) > int64(len(data))/4 {
		return nil, fmt.Errorf("its dictionary of %d bytes cannot hold %d values", len(data), h.Values)
	}
	d := &dictionary{bytes.Clone(data), make([]uint32, h.Values)}
	values := plainValues{d.data}
	for i := range d.at {
		d.at[i] = uint32(len(d.data) - len(values.data))
		if _, err := values.next(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// dictionaryValues are indexes into a dictionary.
type dictionaryValues struct {
	dictionary *dictionary
	indexes    hybrid
}

func (d *dictionaryValues) next() ([]byte, error) {
	i, _, err := d.indexes.run(1)
	if err != nil {
		return nil, err
	}
	if uint64(i) >= uint64(len(d.dictionary.at)) {
		return nil, fmt.Errorf("a value is number %d of a dictionary of %d; the file is damaged, copy it anew", i, len(d.dictionary.at))
	}
	value := plainValues{d.dictionary.data[d.dictionary.at[i]:]}
	return value.next()
}

// deltaLengthValues are the lengths of all strings, then the strings (Encodings.md, DELTA_LENGTH_BYTE_ARRAY).
type deltaLengthValues struct {
	lengths *deltas
	data    []byte
}

func newDeltaLengthValues(data []byte) (*deltaLengthValues, error) {
	lengths, rest, err := newDeltas(data)
	return &deltaLengthValues{lengths, rest}, err
}

func (d *deltaLengthValues) next() ([]byte, error) {
	n, err := d.lengths.next()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(d.data)) {
		return nil, errValuesEnd
	}
	text := d.data[:n]
	d.data = d.data[n:]
	return text, nil
}

// deltaValues share the beginning of the value before (Encodings.md, DELTA_BYTE_ARRAY).
type deltaValues struct {
	prefixes *deltas
	suffixes *deltaLengthValues
	value    []byte
}

func (d *deltaValues) next() ([]byte, error) {
	n, err := d.prefixes.next()
	if err != nil {
		return nil, err
	}
	suffix, err := d.suffixes.next()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(d.value)) {
		return nil, errValuesEnd
	}
	d.value = append(d.value[:n], suffix...)
	return d.value, nil
}

// deltas reads numbers as differences, bit-packed in blocks of miniblocks (Encodings.md, DELTA_BINARY_PACKED).
type deltas struct {
	data      []byte
	left      int64 // numbers that follow
	perMini   int64 // differences of a miniblock
	minis     int   // miniblocks of a block
	first     bool  // the next number stands in the header
	value     int64
	least     int64  // of the block's differences
	widths    []byte // of the miniblocks that follow in the block
	bits      uint   // width of the miniblock at hand
	miniblock []byte
	index     int64 // of the next difference in it
}

// newDeltas returns the numbers at the beginning of data and what follows them.
func newDeltas(data []byte) (*deltas, []byte, error) {
	var header [4]uint64
	for i := range header {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return nil, nil, errValuesEnd
		}
		header[i], data = v, data[n:]
	}
	block, minis, count := header[0], header[1], header[2]
	if minis == 0 || minis > 1<<16 || block > 1<<24 || block%minis != 0 || block/minis == 0 || block/minis%8 != 0 || count > maxParquetValues {
		return nil, nil, fmt.Errorf("blocks of %d differences in %d miniblocks, %d in all, cannot be; the file is damaged, copy it anew", block, minis, count)
	}
	d := &deltas{
		data: data, left: int64(count), perMini: int64(block / minis), minis: int(minis),
		first: true, value: unzigzag(header[3]),
	}
	d.index = d.perMini // there is no miniblock yet
	// What follows begins where the last miniblock ends. The copy finds that without looking at the differences.
	last := *d
	for n := last.left - 1; n > 0; n -= last.perMini {
		if err := last.advance(); err != nil {
			return nil, nil, err
		}
	}
	return d, last.data, nil
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// advance goes to the next miniblock.
func (d *deltas) advance() error {
	if len(d.widths) == 0 {
		least, n := binary.Uvarint(d.data)
		if n <= 0 || len(d.data)-n < d.minis {
			return errValuesEnd
		}
		d.least = unzigzag(least)
		d.widths, d.data = d.data[n:n+d.minis], d.data[n+d.minis:]
	}
	d.bits, d.widths = uint(d.widths[0]), d.widths[1:]
	size := int64(d.bits) * d.perMini / 8
	if d.bits > 64 || size > int64(len(d.data)) {
		return errValuesEnd
	}
	d.miniblock, d.data, d.index = d.data[:size], d.data[size:], 0
	return nil
}

func (d *deltas) next() (int64, error) {
	if d.left == 0 {
		return 0, errValuesEnd
	}
	d.left--
	if d.first {
		d.first = false
		return d.value, nil
	}
	if d.index == d.perMini {
		if err := d.advance(); err != nil {
			return 0, err
		}
	}
	difference := uint64(0)
	for i := range d.bits {
		bit := uint(d.index)*d.bits + i
		difference |= uint64(d.miniblock[bit/8]>>(bit%8)&1) << i
	}
	d.index++
	d.value += d.least + int64(difference)
	return d.value, nil
}
