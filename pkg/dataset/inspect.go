package dataset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"meap/pkg/tokenizer"
)

// InspectedRow is a row of a batch in a form that people can read.
type InspectedRow struct {
	Step      int64     `json:"step"`
	Row       int       `json:"row"` // index in the step's whole batch
	Tokens    int       `json:"tokens"`
	Labelled  int       `json:"labelled"` // labels that count in the loss
	Masked    []int32   `json:"masked"`   // positions
	Documents []int32   `json:"documents"`
	Segments  []Segment `json:"segments"`
}

// Segment is a run of input tokens that are all masked or all not.
type Segment struct {
	Start  int     `json:"start"` // position of the first token
	IDs    []int32 `json:"ids"`   // as the model sees them
	Text   string  `json:"text"`  // of those, see visible
	Masked bool    `json:"masked"`
	// Original and OriginalIDs are what the masks hide.
	Original    string  `json:"original,omitempty"`
	OriginalIDs []int32 `json:"original_ids,omitempty"`
}

// Inspect decodes the rows of a batch.
func Inspect(b *Batch, tok tokenizer.Tokenizer) []InspectedRow {
	rows := make([]InspectedRow, b.Rows)
	for r := range rows {
		inputs := b.Inputs[r*b.Seq : (r+1)*b.Seq]
		original := b.original[r*(b.Seq+1) : (r+1)*(b.Seq+1)]
		row := InspectedRow{
			Step: b.Step, Row: b.FirstRow + r, Tokens: b.Seq,
			Masked: append([]int32{}, b.Masked[r]...), Documents: []int32{},
		}
		for i, label := range b.Labels[r*b.Seq : (r+1)*b.Seq] {
			if label != Ignore {
				row.Labelled++
			}
			if start := b.Starts[r*b.Seq+i]; start == int32(i) {
				row.Documents = append(row.Documents, start)
			}
		}
		for at := 0; at < b.Seq; {
			end, masked := at+1, contains(b.Masked[r], at)
			for end < b.Seq && contains(b.Masked[r], end) == masked {
				end++
			}
			s := Segment{Start: at, IDs: slices.Clone(inputs[at:end]), Masked: masked}
			s.Text = visible(tok.Decode(s.IDs))
			if masked {
				s.OriginalIDs = slices.Clone(original[at:end])
				s.Original = visible(tok.Decode(s.OriginalIDs))
			}
			row.Segments = append(row.Segments, s)
			at = end
		}
		rows[r] = row
	}
	return rows
}

func contains(positions []int32, i int) bool {
	_, ok := slices.BinarySearch(positions, int32(i))
	return ok
}

// String renders the row for a terminal: a line of numbers, then the text as
// the model sees it, then what the masks hide.
func (r InspectedRow) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "step %d row %d: %d tokens, %d masked (%.1f %%), %d labelled, attention begins anew at %v\n",
		r.Step, r.Row, r.Tokens, len(r.Masked), 100*float64(len(r.Masked))/float64(max(1, r.Tokens)), r.Labelled, r.Documents)
	for _, segment := range r.Segments {
		s.WriteString(strings.ReplaceAll(segment.Text, "⏎", "⏎\n"))
	}
	s.WriteString("\nhidden:")
	for _, segment := range r.Segments {
		if segment.Masked {
			fmt.Fprintf(&s, " %d:%q", segment.Start, segment.Original)
		}
	}
	s.WriteByte('\n')
	return s.String()
}

// visible returns text on one line: ⏎ for a line's end, → for a tab, and what
// else cannot be seen, or is no character (a byte-level token may be a part of
// one), as Go escapes it.
func visible(text []byte) string {
	var s strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\n':
			s.WriteRune('⏎')
		case r == '\t':
			s.WriteRune('→')
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, text[0])
		case r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r):
			s.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			s.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[n:]
	}
	return s.String()
}
