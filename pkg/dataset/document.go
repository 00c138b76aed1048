package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"unicode/utf8"

	"meap/pkg/dataset/facts"
)

// errBinary says that a file is no text.
var errBinary = errors.New("the file is not UTF-8 text; convert it, or remove it from the sources")

// errTooLarge says that a file, unpacked, is above data.max_file_bytes.
var errTooLarge = errors.New("the file, unpacked, is larger than data.max_file_bytes; raise that or split the file")

// record is a piece of what a file holds: a text that is learnt as one, packed as <s> text </s>, or tokens that are packed already.
type record struct {
	text []byte  // UTF-8; empty for a record that has none
	ids  []int32 // of a file that is packed already
	at   int64   // bytes of the file that have been read
	own  bool    // text stays valid; else until the next record
}

// reading says how files are read.
type reading struct {
	field    string         // data.text_field
	maxBytes int64          // data.max_file_bytes
	fraction float64        // data.validation_fraction
	ids      ids            // zero where there is no tokenizer yet, and only text can be read
	facts    *facts.Planter // nil: texts are documents as they are
}

// records streams what the part of a file holds. An error names the file, and the line or row where there are any, and says what to
// do; it is the last that comes. Only errBinary and errTooLarge are about the file as a whole not being what it should.
//
// Of a file of text the part is cut between lines, of a file of tokens between documents; of a file of records, whose number is known
// only at its end, every so manieth is held out.
func (o reading) records(f sourceFile) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		emit := func(r record) bool { return yield(r, nil) }
		if o.facts != nil {
			emit = o.plant(emit)
		}
		err := o.read(f, emit)
		if err != nil {
			yield(record{}, fmt.Errorf("reading %s%w", f.Path, err))
		}
	}
}

// plant hands on the documents with facts that texts are cut into, instead of the texts. Of a text that is too short for one nothing
// remains, as if it were empty; tokens that are packed already stay what they are.
func (o reading) plant(emit func(record) bool) func(record) bool {
	return func(r record) bool {
		if r.ids != nil {
			return emit(r)
		}
		documents := 0
		for d := range o.facts.Documents(r.text) {
			documents++
			if !emit(record{text: d.Text, at: r.at, own: true}) {
				return false
			}
		}
		return documents > 0 || emit(record{at: r.at, own: true})
	}
}

// location begins an error with the place in a file.
func location(place string, err error) error { return fmt.Errorf("%s: %w", place, err) }

// read is records with a callback, which returns false to end. The errors begin with what follows the file's name.
func (o reading) read(f sourceFile, yield func(record) bool) error {
	file, err := os.Open(f.location())
	if err != nil {
		return location("", err)
	}
	defer file.Close()
	counted := &counter{Reader: file}
	ext, how := splitName(f.Name)
	buffered := bufio.NewReaderSize(counted, 1<<16)
	if f.isStdin() {
		how = compressionOf(buffered)
	}
	unpacked, done, err := unpack(buffered, how)
	if err != nil {
		return location("", err)
	}
	defer done()
	kind, r, err := formatOf(ext, unpacked, o.field)
	if err != nil {
		return location("", err)
	}
	if how != uncompressed && (kind == formatParquet || kind == formatPacked) {
		return location("", errors.New("it is a packed Parquet or LITPKDS file, and these are read only as they are; unpack it"))
	}
	switch kind {
	case formatJSONL:
		return o.readLines(f, r, counted, yield)
	case formatParquet:
		return o.readParquet(f, file, yield)
	case formatPacked:
		return o.readPacked(f, yield)
	}
	return o.readText(f, r, yield)
}

// readText reads a file that is one document.
func (o reading) readText(f sourceFile, r io.Reader, yield func(record) bool) error {
	var text bytes.Buffer
	if f.Size <= o.maxBytes {
		text.Grow(int(f.Size) + bytes.MinRead) // what a file that is not compressed takes
	}
	if _, err := text.ReadFrom(io.LimitReader(r, min(o.maxBytes, math.MaxInt64-1)+1)); err != nil {
		return location("", explainUnpacking(err))
	}
	all := text.Bytes()
	if int64(len(all)) > o.maxBytes {
		return location("", errTooLarge)
	}
	if bytes.IndexByte(all, 0) >= 0 || !utf8.Valid(all) {
		return location("", errBinary)
	}
	if all = f.Part.of(all, o.fraction); len(all) > 0 {
		yield(record{text: all, at: f.Size, own: true})
	}
	return nil
}

func (o reading) readLines(f sourceFile, r io.Reader, counted *counter, yield func(record) bool) error {
	index := int64(0)
	for l, err := range lines(r, o.maxBytes) {
		place := fmt.Sprint(":", l.number)
		if err != nil {
			return location(place, err)
		}
		index++
		if !f.Part.has(index-1, o.fraction) {
			continue // it is parsed with the part that it belongs to
		}
		text, err := textOf(l.text, o.field)
		if err != nil {
			return location(place, err)
		}
		if !yield(record{text: text, at: counted.n, own: true}) {
			return nil
		}
	}
	return nil
}

func (o reading) readParquet(f sourceFile, file *os.File, yield func(record) bool) error {
	info, err := file.Stat()
	if err != nil {
		return location("", err)
	}
	p, err := openParquet(file, info.Size(), o.field)
	if err != nil {
		return location("", err)
	}
	index := int64(0)
	for text, err := range p.rows() {
		if err != nil {
			return location("", err)
		}
		if int64(len(text)) > o.maxBytes {
			return location(fmt.Sprint(": row ", index+1), fmt.Errorf("the text has more than data.max_file_bytes = %d bytes; raise that or split the text", o.maxBytes))
		}
		if f.Part.has(index, o.fraction) && !yield(record{text: text, at: p.position}) {
			return nil
		}
		index++
	}
	return nil
}

func (o reading) readPacked(f sourceFile, yield func(record) bool) error {
	if o.ids.vocab == 0 {
		return location("", errors.New("it holds tokens, and a vocabulary is learnt from text; set tokenizer.path to the tokenizer that they were made with"))
	}
	p, err := openPacked(f.location(), o.ids)
	if err != nil {
		return location("", err)
	}
	defer p.mapped.Unmap()
	from, to := p.of(f.Part, o.fraction, o.ids.eos)
	at := from
	for run, err := range p.runs(from, to, o.ids) {
		if err != nil {
			return location("", err)
		}
		at += int64(len(run))
		if !yield(record{ids: run, at: headerSize + at*int64(p.dtype.size())}) {
			return nil
		}
	}
	return nil
}
