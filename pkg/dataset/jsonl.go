package dataset

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// bom is the byte order mark that some programs put before UTF-8.
var bom = []byte("\xef\xbb\xbf")

// line is a line of a JSONL file.
type line struct {
	number int    // from 1
	text   []byte // without the line's end; valid until the next line
}

// lines streams the lines that are not blank. A line longer than maxLine bytes, one that is not UTF-8, and a file that is truncated
// are errors, which end the sequence; with an error comes the number of the line that has it.
func lines(r io.Reader, maxLine int64) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		buffered := bufio.NewReaderSize(r, 1<<16)
		var long []byte // a line that does not fit the buffer
		for number := 1; ; number++ {
			text, err := buffered.ReadSlice('\n')
			if err == bufio.ErrBufferFull {
				long = append(long[:0], text...)
				for err == bufio.ErrBufferFull && int64(len(long)) <= maxLine {
					text, err = buffered.ReadSlice('\n')
					long = append(long, text...)
				}
				text = long
			}
			end := err == io.EOF
			switch {
			case err != nil && err != io.EOF && err != bufio.ErrBufferFull:
				err = explainUnpacking(err)
			case int64(len(bytes.TrimRight(text, "\r\n"))) > maxLine:
				err = fmt.Errorf("the line has more than data.max_file_bytes = %d bytes; raise that or split the line", maxLine)
			case !utf8.Valid(text):
				err = errors.New("the line is not UTF-8; convert the file, or remove the line")
			default:
				err = nil
			}
			if err != nil {
				yield(line{number: number}, err)
				return
			}
			if number == 1 {
				text = bytes.TrimPrefix(text, bom)
			}
			if text = bytes.TrimSpace(text); len(text) > 0 && !yield(line{number, text}, nil) || end {
				return
			}
		}
	}
}

// textOf returns the text that a JSON object has in a field: the one of that name, or, where the name has dots and there is none, the
// one inside the objects that it names. A null is no text, as "" is. Half a surrogate pair becomes U+FFFD, as encoding/json has it.
func textOf(object []byte, field string) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil || fields == nil {
		if err == nil {
			err = errors.New("it is null")
		}
		return nil, fmt.Errorf("it is no JSON object (%w); repair the line or remove it", err)
	}
	value, ok := fields[field]
	for rest, inside := field, fields; !ok; {
		var first string
		var more bool
		if first, rest, more = strings.Cut(rest, "."); !more {
			value, ok = inside[first]
			break
		}
		outer, found := inside[first]
		inside = nil
		if !found || json.Unmarshal(outer, &inside) != nil {
			break
		}
	}
	if !ok {
		names := slices.Sorted(maps.Keys(fields))
		if len(names) > 20 {
			names = append(names[:20], "...")
		}
		return nil, fmt.Errorf("it has no field %q, its fields are %q; set data.text_field to the one that holds the text", field, names)
	}
	if string(value) == "null" {
		return nil, nil
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, fmt.Errorf("its field %q holds no string but %.40s; set data.text_field to the one that holds the text", field, value)
	}
	return []byte(text), nil
}
