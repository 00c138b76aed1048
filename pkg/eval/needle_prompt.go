package eval

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// Placed is where a needle came to stand.
type Placed struct {
	Token int     `json:"token"` // index of its first token in the prompt, BOS included
	Depth float64 `json:"depth"` // percent of the document before it
}

// Prompt is one sequence: [BOS] document question answer.
type Prompt struct {
	IDs     []int32
	Answer  int      // index of the answer's first token
	Needles []Placed // ascending; none in a control
}

// Sequence is the prompt with its answer to be scored.
func (p Prompt) Sequence() Sequence { return Sequence{IDs: p.IDs, From: p.Answer} }

// parts are the fixed pieces around a document, as ids.
type parts struct {
	head    []int32 // BOS and what stands before the document
	needles [][]int32
	tail    []int32 // what stands between the document and the answer
	answer  []int32
}

// overhead is how many tokens a prompt holds besides document and needles.
func (p parts) overhead() int { return len(p.head) + len(p.tail) }

func (p parts) needleTokens() int {
	n := 0
	for _, needle := range p.needles {
		n += len(needle)
	}
	return n
}

// encode turns the texts of every case into ids.
func (c *NeedleConfig) encode(tok Tokenizer) ([]parts, error) {
	all := make([]parts, len(c.Cases))
	for i, one := range c.Cases {
		head, tail, err := c.texts(one)
		if err != nil {
			return nil, err
		}
		if c.Render != nil {
			all[i], err = c.chat(tok, head, tail, strings.TrimSpace(one.Answer))
		} else {
			all[i] = base(tok, head, tail, strings.TrimSpace(one.Answer))
		}
		if err != nil {
			return nil, err
		}
		// What stands before a needle ends in a full stop, hence the seam.
		for _, needle := range one.Needles {
			all[i].needles = append(all[i].needles, encodeAfter(tok, ".", hidden(needle)))
		}
	}
	return all, nil
}

// texts fills in the template: what stands before the document, and what
// between it and the answer.
func (c *NeedleConfig) texts(one NeedleCase) (head, tail string, err error) {
	template, ends := strings.CutSuffix(c.Template, "{answer}")
	switch {
	case ends != (c.Render == nil) || strings.Contains(template, "{answer}"):
		err = fmt.Errorf("--template %q: {answer} must stand at its end and nowhere else, and not at all in a chat", c.Template)
	case strings.Count(template, "{context}") != 1 || !strings.Contains(template, "{question}"):
		err = fmt.Errorf("--template %q: it must hold {context} once, and {question}", c.Template)
	}
	head, tail, _ = strings.Cut(template, "{context}")
	return strings.ReplaceAll(head, "{question}", one.Question), strings.ReplaceAll(tail, "{question}", one.Question), err
}

// base encodes what surrounds the document in a prompt that is no chat.
func base(tok Tokenizer, head, tail, answer string) parts {
	var p parts
	if bos := tok.BOS(); bos >= 0 {
		p.head = append(p.head, bos)
	}
	if head != "" {
		p.head = tok.Encode([]byte(head), p.head)
	}
	// Tokenizers join a blank to the word after it, so a prompt that ended in one
	// would make the answer's first token another than in any text.
	trimmed := strings.TrimRight(tail, " ")
	p.tail = encodeAfter(tok, ".", trimmed) // a document ends in a full stop
	p.answer = encodeAfter(tok, trimmed, tail[len(trimmed):]+answer)
	return p
}

// chat encodes what surrounds the document in a conversation.
func (c *NeedleConfig) chat(tok Tokenizer, head, tail, answer string) (parts, error) {
	const document = "\x02document\x03" // no template and no question holds these bytes, and tokenizers join them to no others
	ids, reply, err := c.Render(head+document+tail, answer)
	if err != nil {
		return parts{}, fmt.Errorf("--chat %s: %w", c.Chat, err)
	}
	from := 0
	for from < len(ids) && !bytes.Contains(tok.Decode(ids[:from+1]), []byte(document[:1])) {
		from++
	}
	to := from
	for to < len(ids) && !bytes.HasSuffix(tok.Decode(ids[from:to]), []byte(document)) {
		to++
	}
	switch {
	case string(bytes.TrimLeft(tok.Decode(ids[from:to]), " ")) != document:
		return parts{}, fmt.Errorf("--chat %s: the template does not show the user's message as it is; choose another", c.Chat)
	case len(reply) == 0:
		return parts{}, fmt.Errorf("--chat %s: the answer has no tokens", c.Chat)
	}
	return parts{head: slices.Clone(ids[:from]), tail: slices.Clone(ids[to:]), answer: reply}, nil
}

// Needle builds the prompts of a grid.
type Needle struct {
	cfg      NeedleConfig
	tok      Tokenizer
	source   string
	seed     uint64
	parts    []parts // by case
	order    []int
	hay      []int32
	stride   int // tokens of hay from one stretch to the next
	boundary Boundary
	cuts     []int // where hay may be cut, ascending; nil: anywhere
	progress func(done, prompts int)
}

// NewNeedle tokenises as much of the haystack as the longest context needs and
// finds the places where a needle may stand. maxSeq is the model's.
func NewNeedle(cfg NeedleConfig, tok Tokenizer, hay *Haystack, maxSeq int) (*Needle, error) {
	if err := cfg.check(tok, maxSeq); err != nil {
		return nil, err
	}
	n := &Needle{cfg: cfg, tok: tok, source: hay.Source, seed: hay.Seed, order: cfg.order()}
	var err error
	if n.parts, err = cfg.encode(tok); err != nil {
		return nil, err
	}
	n.cfg.MaxNew = cfg.maxNew(n.parts)
	shortest, longest := math.MaxInt, 0
	for i, p := range n.parts {
		shortest = min(shortest, n.size(cfg.Lengths[0], i)-p.needleTokens()) // check saw that lengths ascend
		longest = max(longest, n.size(cfg.Lengths[len(cfg.Lengths)-1], i))
	}
	// A document may start later than the haystack does so that it ends at a
	// boundary; this much is kept for that.
	n.stride = longest + boundaryReach
	want := max(0, cfg.Texts-1)*n.stride + longest + 8*boundaryReach
	var text []byte
	for size := 4 * want; len(n.hay) < want; size *= 2 {
		if text, err = hay.Text(size); err != nil {
			return nil, err
		}
		n.hay = tok.Encode(text, nil)
		if len(n.hay) == 0 {
			return nil, fmt.Errorf("--haystack %s: the tokenizer makes no tokens of it", hay.Source)
		}
	}
	bytesPerToken := float64(len(text)) / float64(len(n.hay))
	n.hay = n.hay[:want]
	document := tok.Decode(n.hay)
	for _, c := range cfg.Cases {
		for _, needle := range c.Needles {
			if core := bytes.TrimSpace([]byte(needle)); bytes.Contains(document, core) {
				return nil, fmt.Errorf("--haystack %s: the text already holds the needle %q; choose another --needle", hay.Source, core)
			}
		}
	}
	n.boundary, n.cuts, err = chooseBoundary(tok, n.hay, cfg.Boundary, bytesPerToken, shortest)
	return n, err
}

// Boundary is the kind of place that needles are walked back to.
func (n *Needle) Boundary() Boundary { return n.boundary }

// Tokens is how many tokens the longest prompt has together with the longest
// answer, expected or generated.
func (n *Needle) Tokens() int {
	longest := 0
	for i, p := range n.parts {
		longest = max(longest, n.size(n.cfg.Lengths[len(n.cfg.Lengths)-1], i)+p.overhead()+max(n.cfg.MaxNew, len(p.answer)))
	}
	return longest
}

// Progress makes Run call f after every batch with the number of prompts done
// and wanted.
func (n *Needle) Progress(f func(done, prompts int)) { n.progress = f }

// Prompts is how many prompts the grid has.
func (n *Needle) Prompts() int { return len(n.plan()) }

// size is how many tokens document and needles have together.
func (n *Needle) size(length, which int) int {
	if n.cfg.Exact {
		return length - n.parts[which].overhead()
	}
	return length - n.cfg.Buffer
}

// document returns the bounds in hay of size tokens that end at a boundary: the
// haystack from its start, or from that of the case's stretch, moved on by less
// than a sentence.
func (n *Needle) document(size, which int) (from, to int) {
	from = which % max(1, n.cfg.Texts) * n.stride
	to = from + size
	if i := sort.SearchInts(n.cuts, to); i < len(n.cuts) {
		return n.cuts[i] - size, n.cuts[i]
	}
	return from, to
}

// Control returns the prompt of a case without its needles: the same document,
// begun earlier by as many tokens as the needles have, so that the answer
// stands at the same position after the same text.
func (n *Needle) Control(length, which int) Prompt {
	from, to := n.document(n.size(length, which), which)
	var p Prompt
	p.IDs = append(p.IDs, n.parts[which].head...)
	p.IDs = append(p.IDs, n.hay[from:to]...)
	n.ask(&p, which)
	return p
}

// Prompt returns the prompt of a case with its first needle at
// floor(tokens * depth / 100) of the document, walked back to a boundary; depth
// 100 appends it. The others follow, see [NeedleCase].
func (n *Needle) Prompt(length int, depth float64, which int) Prompt {
	parts := n.parts[which]
	from, to := n.document(n.size(length, which), which)
	from += parts.needleTokens()
	var p Prompt
	p.IDs = append(p.IDs, parts.head...)
	last := from
	for i, needle := range parts.needles {
		at := n.place(from, to, depth+float64(i)*(100-depth)/float64(len(parts.needles)))
		p.IDs = append(p.IDs, n.hay[last:at]...)
		p.Needles = append(p.Needles, Placed{Token: len(p.IDs), Depth: 100 * float64(at-from) / float64(to-from)})
		p.IDs = append(p.IDs, needle...)
		last = at
	}
	p.IDs = append(p.IDs, n.hay[last:to]...)
	n.ask(&p, which)
	return p
}

// place returns where in hay a needle goes that stands at a depth of hay[from:to].
func (n *Needle) place(from, to int, depth float64) int {
	at := from + int(math.Floor(float64(to-from)*depth/100))
	if n.cuts == nil || at >= to {
		return min(at, to)
	}
	// The start of the document is a boundary as well.
	if i := sort.SearchInts(n.cuts, at+1); i > 0 {
		return max(from, n.cuts[i-1])
	}
	return from
}

// ask appends question and answer.
func (n *Needle) ask(p *Prompt, which int) {
	p.IDs = append(p.IDs, n.parts[which].tail...)
	p.Answer = len(p.IDs)
	p.IDs = append(p.IDs, n.parts[which].answer...)
}
