package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"unicode/utf8"
)

// Document is a text that is learnt as one: packed as <s> text </s>.
type Document struct {
	Name string // where it came from, for messages
	Text []byte // UTF-8
}

// errBinary says that a file is no text.
var errBinary = errors.New("the file is not UTF-8 text")

// documents streams the documents of one file. A plain text or source file is
// one document. The text of a document is valid until the next one.
func documents(f sourceFile, validationFraction float64) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		text, err := os.ReadFile(f.Path)
		if err == nil && (bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text)) {
			err = errBinary
		}
		if err != nil {
			yield(Document{}, fmt.Errorf("reading %s: %w", f.Path, err))
			return
		}
		text = f.Part.of(text, validationFraction)
		if len(text) > 0 {
			yield(Document{Name: f.Name, Text: text}, nil)
		}
	}
}
