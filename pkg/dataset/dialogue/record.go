package dialogue

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The roles of a message.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
)

// Message is one turn.
type Message struct {
	Role, Content string
	// Instruction and Input are the two parts that Content was put together from where a record has an input.
	Instruction, Input string
}

// Dialogue is a system message or none, and then questions and answers in turn.
type Dialogue struct {
	Messages []Message
	File     string
	Line     int // from 1
}

// Why a dialogue is left out.
var (
	errBroken      = errors.New("a broken line")
	errShape       = errors.New("none of the known forms")
	errRole        = errors.New("a role out of order")
	errEmpty       = errors.New("an empty message")
	errEmptyAnswer = errors.New("an empty answer")
	errTemplate    = errors.New("refused by the template")
	errTooLong     = errors.New("too long")
)

// record is a line of a file in one of the forms that are known.
type record struct {
	// Alpaca's form; self-instruct's has its inputs and outputs in a list.
	Instruction *string    `json:"instruction"`
	Input       *string    `json:"input"`
	Output      *string    `json:"output"`
	Instances   []instance `json:"instances"`

	// Conversations, in ShareGPT's words (from, value) or in those of chat interfaces (role, content).
	Conversations []turn `json:"conversations"`
	Messages      []turn `json:"messages"`
}

type instance struct {
	Input  *string `json:"input"`
	Output *string `json:"output"`
}

type turn struct {
	From    *string `json:"from"`
	Value   *string `json:"value"`
	Role    *string `json:"role"`
	Content *string `json:"content"`
}

// roles are the names that data sets have for the three roles.
var roles = map[string]string{
	"system": System,
	"user":   User, "human": User,
	"assistant": Assistant, "gpt": Assistant, "model": Assistant, "bot": Assistant,
}

// parse returns the dialogues of one record: one, or one for each instance. Errors wrap the reasons above.
func parse(line []byte) ([][]Message, error) {
	if !utf8.Valid(line) {
		return nil, fmt.Errorf("%w: it is not UTF-8", errBroken)
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("%w: %v", errBroken, err)
	}
	switch {
	case r.Messages != nil:
		return one(conversation(r.Messages))
	case r.Conversations != nil:
		return one(conversation(r.Conversations))
	case r.Instruction != nil && r.Instances != nil:
		var all [][]Message
		for _, i := range r.Instances {
			m, err := instruction(*r.Instruction, i.Input, i.Output)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
		return all, nil
	case r.Instruction != nil:
		return one(instruction(*r.Instruction, r.Input, r.Output))
	}
	return nil, fmt.Errorf("%w: it has neither messages nor conversations nor instruction and output", errShape)
}

func one(m []Message, err error) ([][]Message, error) {
	if err != nil {
		return nil, err
	}
	return [][]Message{m}, nil
}

// instruction makes a dialogue of Alpaca's form.
func instruction(text string, input, output *string) ([]Message, error) {
	if output == nil {
		return nil, fmt.Errorf("%w: it has an instruction and no output", errShape)
	}
	question := Message{Role: User, Content: text}
	if input != nil && !blank(*input) {
		question = Message{Role: User, Content: text + "\n\n" + *input, Instruction: text, Input: *input}
	}
	m := []Message{question, {Role: Assistant, Content: *output}}
	if blank(text) {
		return nil, fmt.Errorf("%w: the instruction", errEmpty)
	}
	return m, ordered(m)
}

// conversation makes a dialogue of a list of turns.
func conversation(turns []turn) ([]Message, error) {
	m := make([]Message, len(turns))
	for i, t := range turns {
		name, content := t.Role, t.Content
		if name == nil && content == nil {
			name, content = t.From, t.Value
		}
		if name == nil || content == nil {
			return nil, fmt.Errorf("%w: message %d has not both role and content, or from and value", errShape, i+1)
		}
		role := roles[strings.ToLower(*name)]
		if role == "" {
			return nil, fmt.Errorf("%w: message %d has the unknown role %q", errRole, i+1, *name)
		}
		m[i] = Message{Role: role, Content: *content}
	}
	return m, ordered(m)
}

// ordered checks that questions and answers alternate, after a system message or none, that an answer is last and nothing is empty.
func ordered(m []Message) error {
	first := 0
	if len(m) > 0 && m[0].Role == System {
		first = 1
	}
	for i, want := first, User; i < len(m); i++ {
		if m[i].Role != want {
			return fmt.Errorf("%w: message %d is the %s's, where the %s's was due", errRole, i+1, m[i].Role, want)
		}
		switch {
		case !blank(m[i].Content):
		case want == Assistant:
			return fmt.Errorf("%w: message %d", errEmptyAnswer, i+1)
		default:
			return fmt.Errorf("%w: message %d", errEmpty, i+1)
		}
		if want == User {
			want = Assistant
		} else {
			want = User
		}
	}
	if len(m) == first || m[len(m)-1].Role != Assistant {
		return fmt.Errorf("%w: the last message is not the assistant's", errRole)
	}
	return nil
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }
