package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	pq "github.com/parquet-go/parquet-go/format"
)

// Parquet is read a page at a time, the text column only. parquet-go gives the format's names and the decoding of its metadata. Its
// reading of pages takes sizes on trust (a page of twenty bytes may ask for gigabytes, a damaged one panics), which a program that is
// pointed at downloaded files cannot do; so pages are cut and decoded here, within the limits below, and parquet-go's writer is what
// the tests hold this reader against. Section numbers are those of github.com/apache/parquet-format.

const (
	parquetMagic = "PAR1"
	// maxParquetFooter bounds the metadata of a file; a table of text has kilobytes of it.
	maxParquetFooter = 32 << 20
	// maxParquetHeader bounds the header of a page, which may hold the smallest and the largest value.
	maxParquetHeader = 16 << 20
	// maxParquetPage bounds a page when unpacked. Writers aim at 1 MiB.
	maxParquetPage = 256 << 20
	// maxParquetValues bounds the values of a page, nulls among them.
	maxParquetValues = 1 << 24
)

// The parts of Parquet's metadata that reading one column takes.
type (
	parquetFooter struct {
		Schema    []parquetElement  `thrift:"2,required"`
		RowGroups []parquetRowGroup `thrift:"4,required"`
	}
	parquetElement struct {
		Type       thrift.Null[pq.Type]                `thrift:"1,optional"`
		Repetition thrift.Null[pq.FieldRepetitionType] `thrift:"3,optional"`
		Name       string                              `thrift:"4,required"`
		Children   int32                               `thrift:"5,optional"`
	}
	parquetRowGroup struct {
		Columns []parquetColumn `thrift:"1,required"`
	}
	parquetColumn struct {
		FilePath string            `thrift:"1,optional"`
		Data     parquetColumnData `thrift:"3,optional"`
	}
	parquetColumnData struct {
		Codec          pq.CompressionCodec `thrift:"4,required"`
		Values         int64               `thrift:"5,required"`
		DataPage       int64               `thrift:"9,required"`
		DictionaryPage int64               `thrift:"11,optional"`
	}
	parquetPage struct {
		Type         pq.PageType                          `thrift:"1,required"`
		Uncompressed int32                                `thrift:"2,required"`
		Compressed   int32                                `thrift:"3,required"`
		CRC          thrift.Null[int32]                   `thrift:"4,optional"`
		V1           thrift.Null[parquetDataPage]         `thrift:"5,optional"`
		Dictionary   thrift.Null[parquetDictionaryHeader] `thrift:"7,optional"`
		V2           thrift.Null[parquetDataPageV2]       `thrift:"8,optional"`
	}
	parquetDataPage struct {
		Values   int32       `thrift:"1,required"`
		Encoding pq.Encoding `thrift:"2,required"`
		Levels   pq.Encoding `thrift:"3,required"`
	}
	parquetDictionaryHeader struct {
		Values   int32       `thrift:"1,required"`
		Encoding pq.Encoding `thrift:"2,required"`
	}
	parquetDataPageV2 struct {
		Values           int32             `thrift:"1,required"`
		Encoding         pq.Encoding       `thrift:"4,required"`
		DefinitionLength int32             `thrift:"5,required"`
		RepetitionLength int32             `thrift:"6,required"`
		Compressed       thrift.Null[bool] `thrift:"7,optional"` // true where it is absent
	}
)

// parquetFile is a file whose text column is known.
type parquetFile struct {
	r        io.ReaderAt
	end      int64 // of the pages, where the footer begins
	levels   int   // definition level of a value that is there
	chunks   []parquetColumnData
	pages    pageUnpacker
	header   []byte // buffer
	body     []byte // buffer
	position int64  // in the file, of the next page
}

// openParquet reads the metadata of a file and finds the column that the field names.
func openParquet(r io.ReaderAt, size int64, field string) (*parquetFile, error) {
	tail := make([]byte, 8)
	if size < int64(len(parquetMagic)+len(tail)) {
		return nil, fmt.Errorf("it has %d bytes: it is truncated or no Parquet file", size)
	}
	if _, err := r.ReadAt(tail, size-8); err != nil {
		return nil, err
	}
	if string(tail[4:]) != parquetMagic {
		if string(tail[4:]) == "PARE" {
			return nil, errors.New("it is encrypted; write it anew without encryption")
		}
		return nil, fmt.Errorf("it ends with %q: it is truncated or no Parquet file; copy it anew", tail[4:])
	}
	length := int64(binary.LittleEndian.Uint32(tail))
	if length > size-12 || length > maxParquetFooter {
		return nil, fmt.Errorf("its metadata has %d bytes of the file's %d (at most %d are read): it is damaged, copy it anew", length, size, maxParquetFooter)
	}
	data := make([]byte, length)
	if _, err := r.ReadAt(data, size-8-length); err != nil {
		return nil, err
	}
	var footer parquetFooter
	if _, err := decodeThrift(data, &footer); err != nil {
		return nil, fmt.Errorf("its metadata is damaged (%w), copy it anew", err)
	}
	p := &parquetFile{r: r, end: size - 8 - length}
	column, levels, err := findColumn(footer.Schema, field)
	if err != nil {
		return nil, err
	}
	p.levels = levels
	for i, group := range footer.RowGroups {
		if column >= len(group.Columns) {
			return nil, fmt.Errorf("its row group %d has %d columns where the schema has more: it is damaged, copy it anew", i+1, len(group.Columns))
		}
		c := group.Columns[column]
		if c.FilePath != "" {
			return nil, fmt.Errorf("its column %q is in another file, %q; name files that hold their columns", field, c.FilePath)
		}
		p.chunks = append(p.chunks, c.Data)
	}
	return p, nil
}

// findColumn returns the position of a column among the leaves of the schema, and the definition level of its values. The schema
// lists the tree depth first.
func findColumn(schema []parquetElement, field string) (column, levels int, err error) {
	if len(schema) == 0 || schema[0].Children < 0 {
		return 0, 0, errors.New("it has no schema: it is damaged, copy it anew")
	}
	type open struct {
		name             string // dotted path of the children's parent, with a dot
		left             int32
		levels, repeated int
	}
	path := []open{{left: schema[0].Children}}
	leaf, found := 0, false
	var known []string
	for _, e := range schema[1:] {
		for len(path) > 0 && path[len(path)-1].left == 0 {
			path = path[:len(path)-1]
		}
		if len(path) == 0 || len(path) > 100 {
			return 0, 0, errors.New("its schema is no tree of at most 100 levels: it is damaged, copy it anew")
		}
		parent := &path[len(path)-1]
		parent.left--
		child := open{name: parent.name + e.Name + ".", left: e.Children, levels: parent.levels, repeated: parent.repeated}
		switch e.Repetition.V {
		case pq.Optional:
			child.levels++
		case pq.Repeated:
			child.levels++
			child.repeated++
		}
		if e.Children < 0 {
			return 0, 0, errors.New("its schema is damaged, copy it anew")
		}
		if e.Children > 0 {
			path = append(path, child)
			continue
		}
		name := parent.name + e.Name
		if name == field && !found {
			if child.repeated > 0 {
				return 0, 0, fmt.Errorf("its column %q holds lists; set data.text_field to a column of text", field)
			}
			if !e.Type.Valid || e.Type.V != pq.ByteArray {
				return 0, 0, fmt.Errorf("its column %q holds no text but %v; set data.text_field to a column of text", field, e.Type.V)
			}
			column, levels, found = leaf, child.levels, true
		}
		if len(known) < 20 {
			known = append(known, name)
		}
		leaf++
	}
	if !found {
		return 0, 0, fmt.Errorf("it has no column %q, its columns are %q; set data.text_field to the one that holds the text", field, known)
	}
	return column, levels, nil
}

// rows streams the texts of the file, nil for a null. A text is valid until the next one. The number of its row, from 1, comes with
// an error.
func (p *parquetFile) rows() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		row := int64(0)
		fail := func(err error) {
			yield(nil, fmt.Errorf("row %d: %w", row+1, err))
		}
		defer p.pages.close()
		for _, chunk := range p.chunks {
			p.position = chunk.DataPage
			if d := chunk.DictionaryPage; d > 0 && d < chunk.DataPage {
				p.position = d
			}
			var dictionary *dictionary
			for left := chunk.Values; left > 0; {
				page, err := p.next(chunk.Codec)
				if err != nil {
					fail(err)
					return
				}
				if page.dictionary != nil {
					dictionary = page.dictionary
				}
				if page.values == 0 {
					continue
				}
				if page.values > left {
					fail(fmt.Errorf("a page holds %d values where %d are left: the file is damaged, copy it anew", page.values, left))
					return
				}
				left -= page.values
				values, err := page.decode(dictionary)
				if err != nil {
					fail(err)
					return
				}
				for n := page.values; n > 0; {
					present, run, err := page.levels.take(n)
					if err != nil {
						fail(fmt.Errorf("definition levels: %w", err))
						return
					}
					n -= run
					for range run {
						var text []byte
						if present {
							text, err = values.next()
						}
						if err == nil && !utf8.Valid(text) {
							err = errors.New("the text is not UTF-8; convert it, or remove the row")
						}
						if err != nil {
							fail(err)
							return
						}
						row++
						if !yield(text, nil) {
							return
						}
					}
				}
			}
		}
	}
}

// dataPage is a page, unpacked.
type dataPage struct {
	dictionary *dictionary // of a dictionary page, whose values are 0
	values     int64       // nulls among them
	encoding   pq.Encoding
	levels     presence
	data       []byte
}

// next reads the page at p.position.
func (p *parquetFile) next(codec pq.CompressionCodec) (dataPage, error) {
	h, err := p.readHeader()
	if err != nil {
		return dataPage{}, fmt.Errorf("the header of the page at byte %d: %w; the file is damaged, copy it anew", p.position, err)
	}
	page, err := p.readBody(h, codec)
	if err != nil {
		return page, fmt.Errorf("the page before byte %d: %w; the file is damaged, copy it anew, or write it with another program", p.position, err)
	}
	return page, nil
}

func (p *parquetFile) readHeader() (parquetPage, error) {
	var h parquetPage
	for window := 256; ; window *= 8 {
		if p.position < 4 || p.position >= p.end {
			return h, errors.New("it is outside of the file's data")
		}
		n := int(min(int64(window), p.end-p.position))
		p.header = resize(p.header, n)
		if _, err := p.r.ReadAt(p.header, p.position); err != nil {
			return h, err
		}
		used, err := decodeThrift(p.header, &h)
		if errors.Is(err, errThriftEnds) && n == window && window < maxParquetHeader {
			continue
		}
		p.position += int64(used)
		return h, err
	}
}

func (p *parquetFile) readBody(h parquetPage, codec pq.CompressionCodec) (dataPage, error) {
	var page dataPage
	if h.Compressed < 0 || int64(h.Compressed) > p.end-p.position || h.Compressed > maxParquetPage || h.Uncompressed < 0 || h.Uncompressed > maxParquetPage {
		return page, fmt.Errorf("it has %d bytes, unpacked %d, where at most %d are read", h.Compressed, h.Uncompressed, maxParquetPage)
	}
	p.body = resize(p.body, int(h.Compressed))
	if _, err := p.r.ReadAt(p.body, p.position); err != nil {
		return page, err
	}
	p.position += int64(h.Compressed)
	if h.CRC.Valid && crc32.ChecksumIEEE(p.body) != uint32(h.CRC.V) {
		return page, errors.New("it differs from its checksum")
	}
	switch {
	case h.Type == pq.DictionaryPage && h.Dictionary.Valid:
		data, err := p.pages.unpack(codec, p.body, int(h.Uncompressed))
		if err != nil {
			return page, err
		}
		page.dictionary, err = newDictionary(data, h.Dictionary.V)
		return page, err
	case h.Type == pq.DataPage && h.V1.Valid:
		v := h.V1.V
		data, err := p.pages.unpack(codec, p.body, int(h.Uncompressed))
		if err != nil {
			return page, err
		}
		page.encoding, page.data = v.Encoding, data
		if p.levels > 0 {
			if v.Levels != pq.RLE {
				return page, fmt.Errorf("its levels are encoded as %v, which is not read", v.Levels)
			}
			if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
				return page, errors.New("it ends in the middle of its levels")
			}
			n := int(binary.LittleEndian.Uint32(data))
			page.levels, page.data = newPresence(data[4:4+n], p.levels), data[4+n:]
		}
		return page, page.count(v.Values)
	case h.Type == pq.DataPageV2 && h.V2.Valid:
		v := h.V2.V
		n, m := int64(v.RepetitionLength), int64(v.DefinitionLength)
		if n < 0 || m < 0 || n+m > int64(len(p.body)) || n+m > int64(h.Uncompressed) {
			return page, errors.New("it ends in the middle of its levels")
		}
		if p.levels > 0 {
			page.levels = newPresence(p.body[n:n+m], p.levels)
		}
		page.encoding, page.data = v.Encoding, p.body[n+m:]
		if !v.Compressed.Valid || v.Compressed.V {
			var err error
			if page.data, err = p.pages.unpack(codec, page.data, int(int64(h.Uncompressed)-n-m)); err != nil {
				return page, err
			}
		}
		return page, page.count(v.Values)
	case h.Type == pq.IndexPage:
		return page, nil
	}
	return page, fmt.Errorf("it is of type %v, which is not read", h.Type)
}

// count sets the number of values.
func (d *dataPage) count(values int32) error {
	if values < 0 || values > maxParquetValues {
		return fmt.Errorf("it holds %d values where at most %d are read", values, maxParquetValues)
	}
	d.values = int64(values)
	return nil
}

// resize returns a buffer of n bytes, b where it is large enough.
func resize(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
