package facts

import "fmt"

// A name is two syllables, each a consonant and a vowel; a code is three digits. All are ASCII, so lengths in bytes are known beforehand.
const (
	consonants = "bdfgklmnprstvz"
	vowels     = "aeiou"
	syllables  = len(consonants) * len(vowels)
	nameCount  = syllables * syllables
	nameBytes  = 4

	codeCount = 1000
	codeBytes = 3
)

// heldOutEvery says how many names are held out: one of so many.
const heldOutEvery = 8

// Fact is a name with its code.
type Fact struct {
	Name string `json:"name"`
	Code string `json:"code"`
}

// drawName draws one of the names that are held out of training, or of the others.
func (d *draws) drawName(heldOut bool) string {
	i := d.below(nameCount/heldOutEvery) * heldOutEvery
	if heldOut {
		i += heldOutEvery - 1
	} else {
		i += d.below(heldOutEvery - 1)
	}
	return syllable(i/syllables) + syllable(i%syllables)
}

// syllable returns the i-th one.
func syllable(i int) string { return string([]byte{consonants[i/len(vowels)], vowels[i%len(vowels)]}) }

// drawFacts draws n facts whose names differ.
func (d *draws) drawFacts(n int, heldOut bool) []Fact {
	facts := make([]Fact, 0, n)
	seen := make(map[string]bool, n)
	for len(facts) < n {
		name := d.drawName(heldOut)
		if seen[name] {
			continue
		}
		seen[name] = true
		facts = append(facts, Fact{name, fmt.Sprintf("%0*d", codeBytes, d.below(codeCount))})
	}
	return facts
}
