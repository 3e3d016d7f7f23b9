// SPDX-License-Identifier: Apache-2.0

// Package rfctest reads testdata/rfc.txt of proxy/codec/h1, the table of what RFC 9110 and RFC 9112 demand of an HTTP/1.1
// intermediary, for the two tests that run it: one through the codec, one through the proxy. The head of that file says
// how it is written.
package rfctest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Case is a row of the table.
type Case struct {
	// Clause is "RFC section#n", the nth requirement of a section; Text is what it says, in short.
	Clause, Text string
	Line         int
	// In is what a client sends, Origin what the upstream answers to each request.
	In, Origin string
	// Proxy says that the case is run through the whole proxy and not through the codec alone.
	Proxy bool
	// Steps are what is expected.
	Steps []Step
	// Verdict is "role", "not" or "see" where there is nothing to run, and Reason what is said to it.
	Verdict, Reason string
}

// Step is one expectation: a verb and what it is about.
type Step struct{ Verb, Text string }

// Result is what came of a case.
type Result struct {
	// Up is what the upstream got and Out what the client got.
	Up, Out string
	// Refused is the status and the code of a request that was refused, Bad that of an answer, Broken that of a body that
	// broke off while it was sent on.
	Refused, Bad, Broken string
	// Kept says that the client's connection stays open, Reused the same of the upstream's.
	Kept, Reused bool
}

const (
	defaultIn     = "GET / HTTP/1.1|Host: a||"
	defaultOrigin = "HTTP/1.1 200 OK|Content-Length: 2||ok"
)

// Name names a case for t.Run.
func (c *Case) Name() string { return fmt.Sprintf("%s %s (line %d)", c.Clause, c.Text, c.Line) }

// Read reads the table.
func Read(t testing.TB, path string) (cases []*Case) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c *Case
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case line == "" || line[0] == '#':
		case line[0] != ' ':
			id, text, _ := strings.Cut(line, "  ")
			c = &Case{Clause: id, Text: strings.TrimSpace(text), Line: i + 1}
			cases = append(cases, c)
		case c == nil || !c.add(strings.TrimLeft(line, " ")):
			t.Fatalf("%s:%d: cannot be read: %s", path, i+1, line)
		}
	}
	for _, c := range cases {
		if c.In == "" {
			c.In = bytesOf(defaultIn)
		}
		if c.Origin == "" {
			c.Origin = bytesOf(defaultOrigin)
		}
	}
	return cases
}

// add takes in one line of a case.
func (c *Case) add(line string) bool {
	verb, text, _ := strings.Cut(line, " ")
	switch verb {
	case "<":
		c.In += bytesOf(text)
	case "v":
		c.Origin += bytesOf(text)
	case "proxy":
		c.Proxy = true
	case "role", "not", "see":
		c.Verdict, c.Reason = verb, text
	case ">", ">!", "^", "^!", "^^":
		c.Steps = append(c.Steps, Step{verb, bytesOf(text)})
	case "refused", "bad", "broken", "closed", "kept", "reused", "dropped":
		c.Steps = append(c.Steps, Step{verb, text})
	default:
		return false
	}
	return true
}

// bytesOf reads the notation of the table: | is CRLF, \x.. is a byte.
func bytesOf(s string) string {
	out, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(s, `"`, `\"`), "|", `\r\n`) + `"`)
	if err != nil {
		return s
	}
	return out
}

// Check compares what came of a case with what it expects.
func (c *Case) Check(t testing.TB, got Result) {
	t.Helper()
	for _, s := range c.Steps {
		if !got.holds(s) {
			t.Errorf("want %s %q\ngot  up %q\n     out %q\n     refused %q, bad %q, broken %q, kept %v, reused %v",
				s.Verb, s.Text, got.Up, got.Out, got.Refused, got.Bad, got.Broken, got.Kept, got.Reused)
		}
	}
	if c.Expects("refused") && got.Up != "" {
		t.Errorf("the upstream got %q of what was refused", got.Up)
	}
	if !c.Expects("refused") && got.Refused != "" {
		t.Errorf("refused: %s", got.Refused)
	}
	if !c.Expects("bad") && got.Bad != "" {
		t.Errorf("the answer was refused: %s", got.Bad)
	}
	if !c.Expects("broken") && got.Broken != "" {
		t.Errorf("the request's body broke off: %s", got.Broken)
	}
}

// Expects reports whether a case has a step with this verb.
func (c *Case) Expects(verb string) bool {
	for _, s := range c.Steps {
		if s.Verb == verb {
			return true
		}
	}
	return false
}

func (r *Result) holds(s Step) bool {
	switch s.Verb {
	case ">":
		return strings.Contains(r.Out, s.Text)
	case ">!":
		return !strings.Contains(strings.ToLower(r.Out), strings.ToLower(s.Text))
	case "^":
		return strings.Contains(r.Up, s.Text)
	case "^!":
		return !strings.Contains(strings.ToLower(r.Up), strings.ToLower(s.Text))
	case "^^":
		return r.Up == s.Text
	case "refused":
		return r.Refused == s.Text
	case "bad":
		return r.Bad == s.Text
	case "broken":
		return r.Broken == s.Text
	case "closed":
		return !r.Kept
	case "kept":
		return r.Kept
	case "reused":
		return r.Reused
	default: // dropped
		return !r.Reused
	}
}

// sections is how many requirements each section has: the sentences with MUST, MUST NOT, SHALL or REQUIRED, in their order.
var sections = map[string]int{
	"9112 2.2": 7, "9112 2.3": 1, "9112 3": 1, "9112 3.2": 4, "9112 3.2.1": 2, "9112 3.2.2": 6, "9112 3.2.3": 1,
	"9112 3.2.4": 2, "9112 4": 1, "9112 5.1": 2, "9112 5.2": 4, "9112 6.1": 10, "9112 6.2": 1, "9112 6.3": 11,
	"9112 7.1": 2, "9112 7.1.1": 1, "9112 7.1.2": 2, "9112 7.3": 3, "9112 7.4": 2, "9112 8": 1, "9112 9.2": 2,
	"9112 9.3": 5, "9112 9.3.2": 2, "9112 9.6": 6, "9112 9.7": 1, "9112 9.8": 2,

	"9110 4.2.1": 2, "9110 4.2.2": 3, "9110 4.2.4": 1, "9110 4.3.4": 7, "9110 5.1": 1, "9110 5.3": 3, "9110 5.4": 1,
	"9110 5.5": 2, "9110 5.6.1.1": 1, "9110 5.6.1.2": 2, "9110 5.6.3": 2, "9110 5.6.4": 1, "9110 5.6.7": 4, "9110 6": 1,
	"9110 6.2": 2, "9110 6.5.1": 2, "9110 6.5.2": 1, "9110 6.6.1": 3, "9110 7.1": 1, "9110 7.2": 1, "9110 7.4": 2,
	"9110 7.6": 2, "9110 7.6.1": 3, "9110 7.6.2": 3, "9110 7.6.3": 3, "9110 7.7": 3, "9110 7.8": 7, "9110 8.6": 7,
	"9110 9.3.6": 5, "9110 10.1.1": 7, "9110 15.2": 3, "9110 15.2.2": 1,
}

// CheckIndex fails where a requirement has no row, a row no requirement, or a row points to a test that is not there. root
// is the module's folder.
func CheckIndex(t testing.TB, cases []*Case, root string) {
	t.Helper()
	rows := map[string]int{}
	for _, c := range cases {
		rows[c.Clause]++
		if (c.Verdict == "") == (len(c.Steps) == 0) {
			t.Errorf("line %d: %s has to expect something, or to say why it does not", c.Line, c.Clause)
		}
		if c.Verdict == "see" {
			checkTest(t, c, root)
		} else if c.Verdict != "" && len(c.Reason) < 10 {
			t.Errorf("line %d: %s gives no reason", c.Line, c.Clause)
		}
	}
	for section, n := range sections {
		for i := range n {
			id := fmt.Sprintf("%s#%d", section, i+1)
			if rows[id] == 0 {
				t.Errorf("%s has no row", id)
			}
			delete(rows, id)
		}
	}
	for id := range rows {
		t.Errorf("%s is no requirement that is known", id)
	}
}

// checkTest looks for a test that is named "folder.TestName", and says what for behind that.
func checkTest(t testing.TB, c *Case, root string) {
	t.Helper()
	where, _, _ := strings.Cut(c.Reason, " ")
	folder, name, _ := strings.Cut(where, ".")
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "\nfunc "+name+"(t *testing.T)") {
			return
		}
	}
	t.Errorf("line %d: there is no test %s", c.Line, where)
}
