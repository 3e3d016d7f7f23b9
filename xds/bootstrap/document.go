// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	goyaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
	"go.yaml.in/yaml/v3"
)

const (
	// maxBytes bounds a file, maxDepth its nesting, and maxNodes the values in it after aliases are followed.
	maxBytes = 16 << 20
	maxDepth = 100
	maxNodes = 1 << 20
)

// position is a place in a text, from 1; the zero value is no place.
type position struct {
	file   string
	line   int
	column int
}

// parse reads a text as a tree of nodes, whether it is YAML or JSON. A problem is reported and gives nil.
func parse(file string, text []byte, r *Report) *yaml.Node {
	if len(text) > maxBytes {
		r.fail(position{file: file}, "", fmt.Sprintf("%d bytes are more than the %d allowed", len(text), maxBytes), "")
		return nil
	}
	begin := bytes.TrimLeft(text, " \t\r\n")
	if len(begin) == 0 || begin[0] != '{' {
		return parseYAML(file, text, r)
	}
	root, at, err := parseJSON(text)
	if err == nil {
		return root
	}
	// Envoy takes what is YAML for JSON, such as a comma after the last item.
	second := &Report{}
	if root = parseYAML(file, text, second); root != nil || !strings.HasSuffix(file, ".json") {
		for _, i := range second.Issues {
			r.add(i)
		}
		return root
	}
	at.file = file
	r.fail(at, "", err.Error(), "")
	return nil
}

func parseYAML(file string, text []byte, r *Report) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if err == nil && len(doc.Content) == 1 {
		if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
			r.warn(position{file: file}, "", "only the first document of the text is read")
		}
		if (&expansion{sizes: map[*yaml.Node]int{}}).size(doc.Content[0]) > maxNodes {
			msg := fmt.Sprintf("there are more than %d values where aliases are followed", maxNodes)
			r.fail(position{file: file}, "", msg, "")
			return nil
		}
		return doc.Content[0]
	}
	if errors.Is(err, io.EOF) || err == nil {
		r.fail(position{file: file, line: 1, column: 1}, "", "the text holds no configuration", "")
		return nil
	}
	at, msg := syntaxError(text, err)
	at.file = file
	r.fail(at, "", msg, "")
	return nil
}

// expansion holds the number of values below a node, with aliases followed, so that each node is counted once. within is
// the number of aliases within what they stand for.
type expansion struct {
	sizes  map[*yaml.Node]int
	within int
}

// counting is the size of a node whose values are being counted.
const counting = -1

// size counts to a little over maxNodes. An alias within what it stands for counts as one: the bound on the depth is
// for it. With a second one, there would be twice as many values at each level.
func (e *expansion) size(n *yaml.Node) int {
	if n = resolved(n); n == nil {
		return 0
	}
	size, known := e.sizes[n]
	switch {
	case size == counting:
		if e.within++; e.within > 1 {
			return maxNodes + 1
		}
		return 1
	case known:
		return size
	}
	e.sizes[n] = counting
	size = 1
	for _, c := range n.Content {
		if size += e.size(c); size > maxNodes {
			break
		}
	}
	e.sizes[n] = size
	return size
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError says where a text stops being YAML. The parser in use names the line at which the broken block began; a
// second one knows the place, so it has the word where the text is not too long for it.
func syntaxError(text []byte, err error) (position, string) {
	const longest = 1 << 20
	var syntax *goyaml.SyntaxError
	if len(text) <= longest {
		if _, second := parser.ParseBytes(text, 0); errors.As(second, &syntax) && syntax.Token != nil {
			p := syntax.Token.Position
			return position{line: p.Line, column: p.Column}, strings.ReplaceAll(syntax.Message, "\t", `\t`)
		}
	}
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return position{}, err.Error()
	}
	line, _ := strconv.Atoi(m[1])
	return position{line: line}, m[2]
}

// jsonReader reads JSON into the nodes that YAML is read into. YAML includes most of JSON, but not all: tabs, escaped
// slashes and surrogate pairs differ.
type jsonReader struct {
	text []byte
	dec  *json.Decoder
	// line and begin are of the last place that was asked for: places are asked for in order.
	at, line, begin int
}

// parseJSON reads a text that is one JSON object. Where it is not, the error comes with its place.
func parseJSON(text []byte) (*yaml.Node, position, error) {
	j := &jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
	j.dec.UseNumber()
	root, err := j.value(0)
	if err == nil {
		if _, err = j.dec.Token(); errors.Is(err, io.EOF) {
			return root, position{}, nil
		}
		err = errors.New("there is text after the end of the object")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("the text ends within the object")
	}
	line, column := j.position(j.next())
	return nil, position{line: line, column: column}, err
}

// value reads the next value.
func (j *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	n := &yaml.Node{}
	n.Line, n.Column = j.position(j.next())
	tok, err := j.dec.Token()
	if err != nil {
		return nil, err
	}
	switch x := tok.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if x == '{' {
			n.Kind = yaml.MappingNode
		}
		return n, j.items(n, depth)
	case string:
		n.Kind, n.Tag, n.Value, n.Style = yaml.ScalarNode, "!!str", x, yaml.DoubleQuotedStyle
	case json.Number:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!float", x.String()
		if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", strconv.FormatBool(x)
	default:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!null", "null"
	}
	return n, nil
}

// items reads what an object or an array holds, and its end.
func (j *jsonReader) items(n *yaml.Node, depth int) error {
	for j.dec.More() {
		v, err := j.value(depth + 1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, v)
	}
	_, err := j.dec.Token()
	return err
}

// next returns the offset at which the next token begins.
func (j *jsonReader) next() int {
	i := int(j.dec.InputOffset())
	for i < len(j.text) && strings.IndexByte(" \t\r\n,:", j.text[i]) >= 0 {
		i++
	}
	return i
}

// position returns the line and the column, in bytes, of an offset.
func (j *jsonReader) position(offset int) (line, column int) {
	if offset < j.at {
		j.at, j.line, j.begin = 0, 1, 0
	}
	for ; j.at < offset && j.at < len(j.text); j.at++ {
		if j.text[j.at] == '\n' {
			j.line++
			j.begin = j.at + 1
		}
	}
	return j.line, offset - j.begin + 1
}

var errTooDeep = fmt.Errorf("values are nested more than %d deep", maxDepth)
