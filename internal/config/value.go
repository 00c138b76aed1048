package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// describe says in words what a value of a type must be; ok is false for types that settings cannot have.
func describe(t reflect.Type) (words string, ok bool) {
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.Bool:
		return "true or false", true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number", true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative", true
	case reflect.Float32, reflect.Float64:
		return "a number", true
	case reflect.String:
		return "text", true
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.Slice, reflect.Pointer:
			return "", false
		case reflect.String:
			return "a list of texts", true
		}
		_, ok := describe(t.Elem())
		return "a list of numbers", ok
	}
	return "", false
}

// expected is describe with an example, for messages.
func expected(t reflect.Type) string {
	words, _ := describe(t)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Float32, reflect.Float64:
		words += " such as 4e-4"
	case reflect.Slice:
		words += " such as [a, b]"
	}
	return words
}

// errMismatch says that a text cannot be read as the type; the caller names key and expectation.
var errMismatch = errors.New("wrong type")

// parseText reads a text from --set, the environment, a flag or a YAML scalar as a value of type t. The type decides, not the
// text: 010 or yes for a text stays what it is. The result has exactly type t, that of what it points to for a pointer.
func parseText(text string, t reflect.Type) (any, error) {
	v := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.Pointer:
		return parseText(text, t.Elem())
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "true", "yes", "on", "1":
			v.SetBool(true)
		case "false", "no", "off", "0":
			v.SetBool(false)
		default:
			return nil, errMismatch
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := parseInt(text)
		if err != nil {
			return nil, err
		}
		if v.OverflowInt(n) {
			return nil, errRange
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := parseUint(text)
		if err != nil {
			return nil, err
		}
		if v.OverflowUint(n) {
			return nil, errRange
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		x, err := parseFloat(text)
		if err != nil {
			return nil, err
		}
		if v.OverflowFloat(x) {
			return nil, errRange
		}
		v.SetFloat(x)
	case reflect.Slice:
		return parseList(text, t)
	default:
		return nil, errMismatch
	}
	return v.Interface(), nil
}

var errRange = errors.New("out of range")

// digitGroups matches an underscore between digits, which makes large numbers readable: 1_000_000.
var digitGroups = regexp.MustCompile(`([0-9])_([0-9])`)

// plain strips blanks and digit groups. Replaced twice because matches of 1_2_3 overlap.
func plain(text string) string {
	return digitGroups.ReplaceAllString(digitGroups.ReplaceAllString(strings.TrimSpace(text), "$1$2"), "$1$2")
}

// parseInt reads decimal digits, or a number in floating-point form that is whole: 1e6, 4096.0.
func parseInt(text string) (int64, error) {
	text = plain(text)
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, errRange
	}
	x, err := parseFloat(text)
	if err != nil {
		return 0, err
	}
	// Beyond 2^53 a floating-point text no longer names every whole number.
	if math.Abs(x) > 1<<53 {
		return 0, errRange
	}
	if x != math.Trunc(x) {
		return 0, errMismatch
	}
	return int64(x), nil
}

func parseUint(text string) (uint64, error) {
	n, err := strconv.ParseUint(plain(text), 10, 64)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, errRange
	}
	i, err := parseInt(text)
	if err == nil && i < 0 {
		err = errMismatch
	}
	return uint64(i), err
}

// decimal keeps out what strconv reads beside decimal numbers: hexadecimal floats, inf, nan.
var decimal = regexp.MustCompile(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$`)

func parseFloat(text string) (float64, error) {
	text = plain(text)
	if !decimal.MatchString(text) {
		return 0, errMismatch
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, errRange
	}
	return x, nil
}

// parseList reads [a, b] as YAML does, and otherwise a, b separated by commas; nothing at all is the empty list.
func parseList(text string, t reflect.Type) (any, error) {
	list := reflect.MakeSlice(t, 0, 0)
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		var node yaml.Node
		if err := yaml.Unmarshal([]byte(text), &node); err != nil || len(node.Content) != 1 {
			return nil, errMismatch
		}
		return parseNode(node.Content[0], t)
	}
	if strings.TrimSpace(text) == "" {
		return list.Interface(), nil
	}
	for item := range strings.SplitSeq(text, ",") {
		v, err := parseText(strings.TrimSpace(item), t.Elem())
		if err != nil {
			return nil, err
		}
		list = reflect.Append(list, reflect.ValueOf(v))
	}
	return list.Interface(), nil
}

// parseNode reads a YAML value as a value of type t. A scalar for a list is a list of one.
func parseNode(node *yaml.Node, t reflect.Type) (any, error) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.ScalarNode:
		if t.Kind() != reflect.Slice {
			return parseText(node.Value, t)
		}
		v, err := parseText(node.Value, t.Elem())
		if err != nil {
			return nil, err
		}
		return reflect.Append(reflect.MakeSlice(t, 0, 1), reflect.ValueOf(v)).Interface(), nil
	case yaml.SequenceNode:
		if t.Kind() != reflect.Slice {
			return nil, errMismatch
		}
		list := reflect.MakeSlice(t, 0, len(node.Content))
		for _, item := range node.Content {
			if item.Kind == yaml.AliasNode {
				item = item.Alias
			}
			if item.Kind != yaml.ScalarNode {
				return nil, errMismatch
			}
			v, err := parseText(item.Value, t.Elem())
			if err != nil {
				return nil, err
			}
			list = reflect.Append(list, reflect.ValueOf(v))
		}
		return list.Interface(), nil
	}
	return nil, errMismatch
}

// mismatch is the message about a value that cannot be read, cut where it is long.
func mismatch(key *Key, text string, err error) error {
	if len(text) > 60 {
		text = strings.ToValidUTF8(text[:60], "") + "..."
	}
	if text == "" || strings.ContainsFunc(text, unicode.IsControl) {
		text = strconv.Quote(text)
	}
	if errors.Is(err, errRange) {
		return fmt.Errorf("%s = %s: too large or too small, expected %s", key.Name, text, expected(key.typ))
	}
	return fmt.Errorf("%s = %s: expected %s", key.Name, text, expected(key.typ))
}
