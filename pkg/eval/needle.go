package eval

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"unicode"
)

// NeedleCase is what is hidden in a text and asked for.
type NeedleCase struct {
	// Needles are the sentences to be found, each with the blanks around it; one
	// without any gets line breaks. The first stands at a cell's depth d, of n
	// each other one (100 - d)/n percent after the one before.
	Needles  []string `json:"needles"`
	Question string   `json:"question"` // asked after the document
	Answer   string   `json:"answer"`   // what a right answer contains, and whose probability is measured
	// Keywords are the words and phrases that recall counts; none: every word of
	// the answer.
	Keywords []string `json:"keywords,omitempty"`
}

// NeedleConfig describes a needle-in-a-haystack grid. Its zero fields are not
// defaults; start from [DefaultNeedle].
type NeedleConfig struct {
	Cases []NeedleCase `json:"cases"`
	// Samples is the number of prompts in each cell of the grid. They take the
	// cases in turn, in an order that Seed shuffles (0: as given), so that the
	// grid as a whole uses as many different ones as it can.
	Samples int    `json:"samples"`
	Seed    uint64 `json:"seed"`
	// Texts is the number of different stretches of the haystack that the cases take in turn; 0 or 1: all have the same.
	Texts int `json:"texts,omitempty"`

	// Template is the prompt with {context}, {question} and, last, {answer};
	// blanks before the answer belong to the answer's first token.
	Template string `json:"template"`
	// Chat names the chat template that Render applies; then Template is the
	// user's message, without {answer}. Render returns the tokens of a
	// conversation up to where the answer begins, and those of the answer.
	Chat   string                                                       `json:"chat,omitempty"`
	Render func(user, answer string) (prompt, reply []int32, err error) `json:"-"`

	// Lengths are context lengths in tokens. They are nominal: document and
	// needles together are length - buffer tokens long, and BOS, question and
	// answer come on top. With Exact they are those of the whole prompt, up to
	// where the answer begins.
	Lengths []int `json:"lengths"`
	Exact   bool  `json:"exact_lengths"`
	// Depths are the places of the (first) needle in percent of the document, 0
	// its start, 100 its end.
	Depths []float64 `json:"depths"`
	// Buffer is the part of the nominal length kept free for the question and
	// the answer.
	Buffer int `json:"buffer"`
	// Boundary is the kind of place that a needle is walked back to.
	Boundary Boundary `json:"boundary"`
	// MaxNew is the number of tokens that an answer may have; 0: 50, or what
	// the longest expected answer needs.
	MaxNew int `json:"max_new"`

	// Batch is the number of prompts handed to the model at once, at least 1.
	Batch int `json:"-"`
	// Limit ends after that many cells of the grid, 0 for all.
	Limit int `json:"limit,omitempty"`
}

// The templates of prompts.
const (
	BaseTemplate = "{context}\n\nQuestion: {question}\nAnswer: {answer}"
	ChatTemplate = "{context}\n\nQuestion: {question}"
)

// DefaultCase is the needle of the original test
// (github.com/gkamradt/LLMTest_NeedleInAHaystack).
func DefaultCase() NeedleCase {
	return NeedleCase{
		Needles:  []string{"\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\n"},
		Question: "What is the best thing to do in San Francisco?",
		Answer:   "eat a sandwich and sit in Dolores Park on a sunny day.",
	}
}

// DefaultNeedle returns a grid with [DefaultCase] without lengths, which depend
// on the model: see [NeedleConfig.Bounds].
func DefaultNeedle() NeedleConfig {
	return NeedleConfig{
		Cases:    []NeedleCase{DefaultCase()},
		Samples:  1,
		Template: BaseTemplate,
		Depths:   Linspace(0, 100, 11),
		Buffer:   200,
		Boundary: BoundaryAuto,
		Batch:    1,
	}
}

// Linspace returns n evenly spaced values from lo to hi, both included.
func Linspace(lo, hi float64, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = lo
		if n > 1 {
			v[i] += (hi - lo) * float64(i) / float64(n-1)
		}
	}
	return v
}

// LinspaceLengths is [Linspace] rounded to whole tokens, without repetitions.
func LinspaceLengths(lo, hi, n int) []int {
	var lengths []int
	for _, v := range Linspace(float64(lo), float64(hi), n) {
		if l := int(math.RoundToEven(v)); len(lengths) == 0 || l > lengths[len(lengths)-1] {
			lengths = append(lengths, l)
		}
	}
	return lengths
}

// Sigmoid spaces depths as the original test's sigmoid does, close together at
// both ends: 100 / (1 + exp(-0.1 (x - 50))), with 0 and 100 kept.
func Sigmoid(depths []float64) []float64 {
	v := make([]float64, len(depths))
	for i, x := range depths {
		v[i] = x
		if x != 0 && x != 100 {
			v[i] = math.Round(1000*100/(1+math.Exp(-0.1*(x-50)))) / 1000
		}
	}
	return v
}

// ReadNeedles reads cases, one JSON object per line with the keys of
// [NeedleCase]; needle is a shorter way to write needles with one.
func ReadNeedles(path string) ([]NeedleCase, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--needles: %w; give a file with one JSON object per line: needle, question, answer", err)
	}
	defer f.Close()
	var cases []NeedleCase
	lines := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, readErr := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			c, err := parseCase(line)
			if err != nil {
				return nil, fmt.Errorf("--needles %s:%d: %w", path, n, err)
			}
			cases = append(cases, c)
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return nil, fmt.Errorf("--needles %s: %w", path, readErr)
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("--needles %s: the file is empty; give one JSON object per line: needle, question, answer", path)
	}
	return cases, nil
}

func parseCase(line []byte) (NeedleCase, error) {
	var c struct {
		Needle string `json:"needle"`
		NeedleCase
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return NeedleCase{}, fmt.Errorf("want one JSON object with needle (or needles), question, answer and perhaps keywords: %w", err)
	}
	if dec.More() {
		return NeedleCase{}, errors.New("want one JSON object, but more follows it")
	}
	if c.Needle != "" {
		c.Needles = append([]string{c.Needle}, c.Needles...)
	}
	return c.NeedleCase, c.check()
}

// check refuses what cannot be asked.
func (c *NeedleCase) check() error {
	if len(c.Needles) == 0 {
		return errors.New("needle: give the sentence to be hidden")
	}
	for _, needle := range c.Needles {
		if strings.TrimSpace(needle) == "" {
			return errors.New("needle: give the sentence to be hidden")
		}
	}
	if strings.TrimSpace(c.Question) == "" {
		return errors.New("question: give the question that the needle answers")
	}
	if normalAnswer(c.Answer) == "" {
		return errors.New("answer: give the answer whose probability is measured")
	}
	for _, k := range c.Keywords {
		if len(words(k)) == 0 {
			return fmt.Errorf("keyword %q has neither letters nor digits", k)
		}
	}
	return c.checkAnswer()
}

// checkAnswer refuses an answer that is not in the needles: what a model takes from them would never be right. Keywords say what of it
// must be there; else it is all of it or, where it is put together of several needles, any of its words.
func (c *NeedleCase) checkAnswer() error {
	for _, k := range c.Keywords {
		if !c.holds(k) {
			return fmt.Errorf("keyword %q does not occur in the needle; give words and phrases that do", k)
		}
	}
	if len(c.Keywords) > 0 || c.holds(c.Answer) || len(c.Needles) > 1 && slices.ContainsFunc(words(c.Answer), c.holds) {
		return nil
	}
	return fmt.Errorf("answer: %q does not occur in the needle, so that nothing a model finds there is right; quote the needle, or name as keywords "+
		"what of it a right answer holds", c.Answer)
}

// holds reports whether one of the needles holds a text, as recall or as exact would find it there.
func (c *NeedleCase) holds(text string) bool {
	return slices.ContainsFunc(c.Needles, func(needle string) bool {
		return holdsWords(words(needle), words(text)) || holdsAnswer(needle, text)
	})
}

// hidden returns a needle as it is put into the text.
func hidden(needle string) string {
	if first, last := []rune(needle)[0], []rune(needle); unicode.IsSpace(first) || unicode.IsSpace(last[len(last)-1]) {
		return needle
	}
	return "\n" + needle + "\n"
}

// MaxSamples is far above any evaluation that ends; it keeps a typing error from filling the memory with prompts.
const MaxSamples = 1 << 20

// checkSettings refuses what cannot be run whatever the model is, naming the flag.
func (c *NeedleConfig) checkSettings() error {
	if len(c.Cases) == 0 {
		return errors.New("--needle: give the sentence to be hidden")
	}
	for i := range c.Cases {
		if err := c.Cases[i].check(); err != nil {
			if len(c.Cases) > 1 {
				return fmt.Errorf("--needles, case %d: %w", i+1, err)
			}
			return fmt.Errorf("--%w", err)
		}
	}
	switch {
	case c.Samples < 1 || c.Samples > MaxSamples:
		return fmt.Errorf("--samples %d: from 1 to %d", c.Samples, MaxSamples)
	case len(c.Depths) == 0:
		return errors.New("--depths: give at least one depth in percent")
	case c.Texts < 0 || c.Texts > MaxSamples:
		return fmt.Errorf("--texts %d: from 0 to %d", c.Texts, MaxSamples)
	case c.Buffer < 0:
		return fmt.Errorf("--buffer %d: 0 or more tokens", c.Buffer)
	case c.Batch < 1:
		return fmt.Errorf("--batch %d: at least 1", c.Batch)
	case c.Limit < 0:
		return fmt.Errorf("--limit %d: give a number of cells, or 0 for all", c.Limit)
	case c.MaxNew < 0:
		return fmt.Errorf("--max-new %d: at least 1, or 0 for what the answers need", c.MaxNew)
	}
	for i, d := range c.Depths {
		if !(d >= 0 && d <= 100) {
			return fmt.Errorf("--depths %v: between 0 and 100 percent", d)
		}
		if i > 0 && d <= c.Depths[i-1] {
			return fmt.Errorf("--depths %v after %v: give them in ascending order, each once", d, c.Depths[i-1])
		}
	}
	return nil
}

// check refuses what cannot be run with a model, naming the flag.
func (c *NeedleConfig) check(tok Tokenizer, maxSeq int) error {
	if len(c.Lengths) == 0 {
		return errors.New("--lengths: give at least one context length in tokens")
	}
	lo, hi, err := c.Bounds(tok, maxSeq)
	if err != nil {
		return err
	}
	if lo > hi {
		return fmt.Errorf("--lengths: no length fits: the shortest for this needle is %d tokens (--buffer %d), the longest for the model's max_seq %d is %d; use a shorter needle, question or answer, a smaller --max-new, or a model with a larger max_seq", lo, c.Buffer, maxSeq, hi)
	}
	for i, l := range c.Lengths {
		switch {
		case l > hi:
			return fmt.Errorf("--lengths %d: prompt and answer would be %d tokens more than the model's max_seq, which is %d; the longest length that fits is %d", l, l-hi, maxSeq, hi)
		case l < lo:
			return fmt.Errorf("--lengths %d: too short for the needle and a document as long (--buffer %d); the shortest length that fits is %d", l, c.Buffer, lo)
		case i > 0 && l <= c.Lengths[i-1]:
			return fmt.Errorf("--lengths %d after %d: give them in ascending order, each once", l, c.Lengths[i-1])
		}
	}
	return nil
}

// Bounds returns the smallest and the largest length that fit: the document is
// at least as long as the needles, and the whole prompt leaves room for the
// answer in a model with maxSeq positions. lo > hi means that none fits.
func (c *NeedleConfig) Bounds(tok Tokenizer, maxSeq int) (lo, hi int, err error) {
	if err := c.checkSettings(); err != nil {
		return 0, 0, err
	}
	all, err := c.encode(tok)
	if err != nil {
		return 0, 0, err
	}
	hi = math.MaxInt
	for _, p := range all {
		beside := c.Buffer
		if c.Exact {
			beside = p.overhead()
		}
		lo = max(lo, beside+2*p.needleTokens())
		// The last token of an answer is predicted and never read.
		hi = min(hi, maxSeq+1-max(c.maxNew(all), len(p.answer))-p.overhead()+beside)
	}
	return lo, hi, nil
}

// maxNew resolves MaxNew for the encoded cases.
func (c *NeedleConfig) maxNew(all []parts) int {
	if c.MaxNew > 0 {
		return c.MaxNew
	}
	n := 50
	for _, p := range all {
		n = max(n, len(p.answer))
	}
	return n
}

// order returns the cases in the order in which prompts take them.
func (c *NeedleConfig) order() []int {
	if c.Seed != 0 {
		return rand.New(rand.NewPCG(c.Seed, 1)).Perm(len(c.Cases))
	}
	order := make([]int, len(c.Cases))
	for i := range order {
		order[i] = i
	}
	return order
}
