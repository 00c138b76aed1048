// Package facts plants facts into text, and questions about them further on: synthetic training data for retrieval. A fact is a line
// that gives a made-up name a code, "bado=417"; a question is a line that repeats the name, "bado?", and then the code, which
// nothing but the fact tells. A model that predicts it has found the fact in its context.
//
// Everything is a pure function of the configuration and the text.
package facts

import (
	"fmt"
	"strings"
)

// Config is the section "facts" of a configuration.
type Config struct {
	// PerDocument is the largest number of facts in a document, 0 for text as it is. Every document has from 1 to so many, because
	// documents with few are where a model can begin to learn.
	PerDocument int `mapstructure:"per_document" help:"facts planted into a document, from 1 to so many, each a line that gives a made-up name a code (0: none)"`
	// Questions is the number of questions in every document. Each fact is asked for in turn, so at least as many as there are facts
	// ask for all.
	Questions int `mapstructure:"questions" help:"questions in every document; each stands somewhere after the fact it asks for"`
	// DocumentBytes is the length of the documents that texts are cut into, facts and questions included. With the byte tokenizer,
	// trainer.seq - 1 makes every row a whole document: <s>, the document, </s> are the trainer.seq + 1 tokens of a row.
	DocumentBytes int `mapstructure:"document_bytes" help:"length of the documents that texts are cut into, facts and questions included; with the tokenizer bytes, trainer.seq - 1 makes every row one document"`
	// Fact is the line that states a fact.
	Fact string `mapstructure:"fact" help:"a fact's line, with {name} and {code}"`
	// Question is the line that asks for one.
	Question string `mapstructure:"question" help:"a question's line, with {name} and, at its end, the answer {code}"`
}

// The placeholders in Config.Fact and Config.Question.
const (
	namePlace = "{name}"
	codePlace = "{code}"
)

// DefaultConfig returns the defaults, which plant nothing.
func DefaultConfig() Config {
	return Config{Questions: 8, DocumentBytes: 511, Fact: "{name}={code}", Question: "{name}?{code}"}
}

// MaxPerDocument is far below the number of names that are held out, so that those of a document are always different.
const MaxPerDocument = 256

// Validate returns one error per value out of range; each begins with the value's full key.
func (c Config) Validate() []error {
	var errs []error
	bad := func(key string, value any, format string, args ...any) {
		errs = append(errs, fmt.Errorf("facts.%s = %v: %s", key, value, fmt.Sprintf(format, args...)))
	}
	if c.PerDocument < 0 || c.PerDocument > MaxPerDocument {
		bad("per_document", c.PerDocument, "must be from 0 to %d", MaxPerDocument)
	}
	if c.Questions < 0 || c.Questions > 1<<16 {
		bad("questions", c.Questions, "must be from 0 to %d", 1<<16)
	}
	if c.DocumentBytes < 1 || c.DocumentBytes > 1<<30 {
		bad("document_bytes", c.DocumentBytes, "must be from 1 to %d", 1<<30)
	}
	if !isLine(c.Fact) || strings.Count(c.Fact, codePlace) != 1 {
		bad("fact", fmt.Sprintf("%q", c.Fact), "must be one line that holds %s and %s, each once", namePlace, codePlace)
	}
	if before, ends := strings.CutSuffix(c.Question, codePlace); !isLine(c.Question) || !ends || strings.Contains(before, codePlace) {
		bad("question", fmt.Sprintf("%q", c.Question), "must be one line that holds %s once and ends in %s", namePlace, codePlace)
	}
	if planted := c.plantedBytes(c.PerDocument); len(errs) == 0 && c.PerDocument > 0 && c.DocumentBytes < planted+minText {
		bad("document_bytes", c.DocumentBytes, "the facts and questions of a document take %d, so it must be at least %d", planted, planted+minText)
	}
	return errs
}

// minText is the least text in a document, in bytes.
const minText = 16

func isLine(s string) bool {
	return strings.Count(s, namePlace) == 1 && !strings.ContainsAny(s, "\n\r")
}

// plantedBytes is the length of n facts and a document's questions with the ends of their lines.
func (c Config) plantedBytes(n int) int {
	line := func(form string) int { return len(form) - len(namePlace) - len(codePlace) + nameBytes + codeBytes + 1 }
	return n*line(c.Fact) + c.Questions*line(c.Question)
}
