// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Severity says whether an issue keeps a configuration from being used.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warn"
)

// Issue is one thing to say about a configuration.
type Issue struct {
	// File is the name of the file, or of the flag that held the text.
	File string `json:"file"`
	// Line and Column are counted from 1; 0 where there is no place.
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	Severity Severity `json:"severity"`
	// Path is the field in the bootstrap, in snake_case with list indices and map keys.
	Path string `json:"path,omitempty"`
	// Message says what is wrong and what is allowed.
	Message string `json:"message"`
	// Hint is what was probably meant, "" where there is no guess.
	Hint string `json:"hint,omitempty"`
}

// Report is everything there is to say about a configuration, in the order of places.
type Report struct {
	// File is the file that was read.
	File   string
	Issues []Issue
	// errors and warnings count all, also those that are not kept.
	errors, warnings int
}

// maxIssues bounds the errors, and the warnings, that a report keeps.
const maxIssues = 1000

func (r *Report) fail(at position, path, msg, hint string) {
	r.add(Issue{File: at.file, Line: at.line, Column: at.column, Severity: SeverityError, Path: path, Message: msg, Hint: hint})
}

func (r *Report) warn(at position, path, msg string) {
	r.add(Issue{File: at.file, Line: at.line, Column: at.column, Severity: SeverityWarning, Path: path, Message: msg})
}

func (r *Report) add(i Issue) {
	n := &r.warnings
	if i.Severity == SeverityError {
		n = &r.errors
	}
	if *n++; *n <= maxIssues {
		r.Issues = append(r.Issues, i)
	}
}

// sort orders issues by place; those of a file come together, and those without a place first.
func (r *Report) sort() {
	files := map[string]int{}
	for _, i := range r.Issues {
		if _, ok := files[i.File]; !ok {
			files[i.File] = len(files)
		}
	}
	slices.SortStableFunc(r.Issues, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Errors counts the issues that keep the configuration from being used, also those beyond the thousand that are kept.
func (r *Report) Errors() int { return r.errors }

// Warnings counts the other issues, in the same way.
func (r *Report) Warnings() int { return r.warnings }

// Text writes the report for a person: for each issue a line with its place and below it the path of its field, and at
// the end the counts. What a configuration holds is written without control characters, so that it cannot reach the
// terminal.
func (r *Report) Text() string {
	var b strings.Builder
	for _, i := range r.Issues {
		head := fmt.Sprintf("%s  %-5s  %s", i.place(), i.Severity, i.Message)
		if i.Hint != "" {
			head += "  " + i.Hint
		}
		fmt.Fprintln(&b, clean(head))
		if i.Path != "" {
			fmt.Fprintf(&b, "   %s\n", clean(clip(i.Path)))
		}
	}
	fmt.Fprintf(&b, "%s, %s\n", plural(r.Errors(), "error"), plural(r.Warnings(), "warning"))
	return b.String()
}

// clip shortens a path that is too long to be read.
func clip(path string) string {
	const longest = 400
	if len(path) > longest {
		return strings.ToValidUTF8(path[:longest], "") + "..."
	}
	return path
}

func (i Issue) place() string {
	switch {
	case i.Line == 0:
		return i.File
	case i.Column == 0:
		return fmt.Sprintf("%s:%d", i.File, i.Line)
	}
	return fmt.Sprintf("%s:%d:%d", i.File, i.Line, i.Column)
}

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

// clean replaces control characters, and those that turn the direction of text around.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// JSON writes the report for a program: an object with apiVersion, file, valid, the counts and the issues.
func (r *Report) JSON() ([]byte, error) {
	issues := r.Issues
	if issues == nil {
		issues = []Issue{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(struct {
		APIVersion string  `json:"apiVersion"`
		File       string  `json:"file"`
		Valid      bool    `json:"valid"`
		Errors     int     `json:"errors"`
		Warnings   int     `json:"warnings"`
		Issues     []Issue `json:"issues"`
	}{"meshtap/v1", r.File, r.Errors() == 0, r.Errors(), r.Warnings(), issues})
	return b.Bytes(), err
}

// Invalid is the error for a configuration that cannot be used.
type Invalid struct{ Report Report }

// Error returns the report as text.
func (e *Invalid) Error() string { return strings.TrimRight(e.Report.Text(), "\n") }
