package dialogue

import (
	"fmt"
	"strings"

	"meap/pkg/dataset"
	"meap/pkg/tokenizer"
)

// InspectedRow is a row of a batch in a form that people can read: what the model sees, what masks hide, and what is learnt.
type InspectedRow struct {
	dataset.InspectedRow
	Learnt []Learnt `json:"learnt"`
}

// Learnt is a run of labels.
type Learnt struct {
	At   int    `json:"at"` // the position that predicts the first
	Text string `json:"text"`
}

// Inspect decodes the rows of a batch.
func Inspect(b *dataset.Batch, tok tokenizer.Tokenizer) []InspectedRow {
	var rows []InspectedRow
	for r, row := range dataset.Inspect(b, tok) {
		inspected := InspectedRow{InspectedRow: row, Learnt: []Learnt{}}
		labels := b.Labels[r*b.Seq : (r+1)*b.Seq]
		for at := 0; at < len(labels); at++ {
			end := at
			for end < len(labels) && labels[end] != dataset.Ignore {
				end++
			}
			if end > at {
				inspected.Learnt = append(inspected.Learnt, Learnt{at, string(tok.Decode(labels[at:end]))})
				at = end
			}
		}
		rows = append(rows, inspected)
	}
	return rows
}

// String renders the row for a terminal.
func (r InspectedRow) String() string {
	var s strings.Builder
	s.WriteString(r.InspectedRow.String())
	s.WriteString("learnt:")
	for _, l := range r.Learnt {
		fmt.Fprintf(&s, " %d:%q", l.At, l.Text)
	}
	s.WriteByte('\n')
	return s.String()
}
