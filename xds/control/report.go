// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/meshtap/meshtap/xds/bootstrap"
)

// Issue is one thing that is wrong with a mesh.yaml, in the form that a bootstrap's issues have.
type Issue = bootstrap.Issue

// maxIssues bounds what is told of one file.
const maxIssues = 100

// Invalid is the error for a mesh.yaml that cannot be used.
type Invalid struct {
	File string
	// Issues are in the order of their places.
	Issues []Issue
	// More counts the issues beyond the hundred that are kept.
	More int
}

// Error writes the issues for a person: for each a line with its place and below it the path of its field, and at the end
// their number. What the file holds is written without control characters, so that it cannot reach the terminal.
func (e *Invalid) Error() string {
	var b strings.Builder
	for _, i := range e.Issues {
		fmt.Fprintln(&b, clean(strings.TrimRight(fmt.Sprintf("%s  error  %s  %s", place(i), i.Message, i.Hint), " ")))
		if i.Path != "" {
			fmt.Fprintf(&b, "   %s\n", clean(i.Path))
		}
	}
	if n := len(e.Issues) + e.More; n == 1 {
		b.WriteString("1 error")
	} else {
		fmt.Fprintf(&b, "%d errors", n)
	}
	return b.String()
}

// Summary is the first issue in one line, for logs.
func (e *Invalid) Summary() string {
	i := e.Issues[0]
	s := strings.TrimRight(fmt.Sprintf("%s: %s  %s", place(i), i.Message, i.Hint), " ")
	if n := len(e.Issues) + e.More; n > 1 {
		s += fmt.Sprintf(" (and %d more)", n-1)
	}
	return clean(s)
}

func place(i Issue) string {
	switch {
	case i.Line == 0:
		return i.File
	case i.Column == 0:
		return fmt.Sprintf("%s:%d", i.File, i.Line)
	}
	return fmt.Sprintf("%s:%d:%d", i.File, i.Line, i.Column)
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

// invalid returns the error for what was found, nil where nothing was.
func (d *document) invalid() error {
	if len(d.issues) == 0 {
		return nil
	}
	slices.SortStableFunc(d.issues, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	e := &Invalid{File: d.file, Issues: d.issues}
	if len(d.issues) > maxIssues {
		e.Issues, e.More = d.issues[:maxIssues], len(d.issues)-maxIssues
	}
	return e
}
