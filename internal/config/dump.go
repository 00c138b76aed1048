package config

import (
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Dump writes a configuration (a pointer to a struct as Keys wants it) as YAML, sections and keys in the order of the fields. Load
// reads the same values back.
func Dump(cfg any) ([]byte, error) {
	root := reflect.ValueOf(cfg).Elem()
	document := &yaml.Node{Kind: yaml.MappingNode}
	sections := map[string]*yaml.Node{}
	for _, key := range Keys(cfg) {
		section, field, _ := strings.Cut(key.Name, ".")
		if sections[section] == nil {
			sections[section] = &yaml.Node{Kind: yaml.MappingNode}
			document.Content = append(document.Content, quoted(section), sections[section])
		}
		value := root.Field(key.index[0]).Field(key.index[1])
		sections[section].Content = append(sections[section].Content, quoted(field), toNode(value))
	}
	return yaml.Marshal(document)
}

// Flatten returns a configuration's values by full key, as the training state keeps them. Pointers are followed; nil is nil.
func Flatten(cfg any) map[string]any {
	root := reflect.ValueOf(cfg).Elem()
	flat := map[string]any{}
	for _, key := range Keys(cfg) {
		value := root.Field(key.index[0]).Field(key.index[1])
		if value.Kind() == reflect.Pointer {
			if value.IsNil() {
				flat[key.Name] = nil
				continue
			}
			value = value.Elem()
		}
		flat[key.Name] = value.Interface()
	}
	return flat
}

// number is a scalar without quotes; a tag would be written out where a reader would not guess it (the number 1 for a float).
func number(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text}
}

// plainText matches texts that need no quotes anywhere in YAML, if they are not one of the words that YAML 1.1 reads as something else.
var (
	plainText = regexp.MustCompile(`^[A-Za-z_./$][A-Za-z0-9_./$*+-]*$`)
	yamlWord  = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|\.nan|\.inf|[.e0-9+_-]*)$`)
)

func quoted(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if !plainText.MatchString(text) || yamlWord.MatchString(text) {
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}

func toNode(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return number("null")
		}
		return toNode(v.Elem())
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			list.Content = append(list.Content, toNode(v.Index(i)))
		}
		return list
	case reflect.Bool:
		return number(strconv.FormatBool(v.Bool()))
	case reflect.String:
		return quoted(v.String())
	case reflect.Float32:
		return number(formatFloat(v.Float(), 32))
	case reflect.Float64:
		return number(formatFloat(v.Float(), 64))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return number(strconv.FormatUint(v.Uint(), 10))
	}
	return number(strconv.FormatInt(v.Int(), 10))
}

// formatFloat writes all digits, and always a point where there is an exponent: YAML 1.1 readers take 4e-5 for a text.
func formatFloat(x float64, bits int) string {
	if size := math.Abs(x); size == 0 || size >= 1e-9 && size < 1e15 {
		return strconv.FormatFloat(x, 'f', -1, bits)
	}
	text := strconv.FormatFloat(x, 'e', -1, bits)
	if mantissa, exponent, ok := strings.Cut(text, "e"); ok && !strings.Contains(mantissa, ".") {
		text = mantissa + ".0e" + exponent
	}
	return text
}

// inline is a value as it stands in a line of YAML.
func inline(v reflect.Value) string {
	text, err := yaml.Marshal(toNode(v))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
