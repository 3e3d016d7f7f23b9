// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Exit codes, as docs/cli.md lists them.
const (
	ExitFailure     = 1
	ExitUsage       = 2
	ExitConfig      = 3
	ExitUnreachable = 4
	ExitProblems    = 5
	ExitPartial     = 6
	ExitTimeout     = 124
	ExitInterrupted = 130
)

// exitNames are the codes as programs read them.
var exitNames = map[int]string{
	ExitFailure: "failure", ExitUsage: "usage", ExitConfig: "config_invalid", ExitUnreachable: "not_reachable",
	ExitProblems: "problems_found", ExitPartial: "partial_result", ExitTimeout: "timeout", ExitInterrupted: "interrupted",
}

// docs is where the codes are explained.
const docs = "docs/cli.md#exit-codes"

// Error ends a verb: with a code, and what to tell. Where Msg is "", everything was told already.
type Error struct {
	Exit int
	Msg  string
	// Hint says what to do next, "" where there is nothing to advise.
	Hint string
}

// Error returns the message.
func (e *Error) Error() string { return e.Msg }

// Errorf returns an Error without a hint.
func Errorf(exit int, format string, args ...any) *Error {
	return &Error{Exit: exit, Msg: fmt.Sprintf(format, args...)}
}

// Usage returns the Error for a command line that cannot be meant.
func Usage(hint, format string, args ...any) *Error {
	return &Error{Exit: ExitUsage, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// Quiet returns an Error that only carries a code.
func Quiet(exit int) *Error { return &Error{Exit: exit} }

// Report tells of an error on w, in one line and one for the hint, or as JSON, and returns the code to end with. A nil
// error is 0.
func Report(w io.Writer, err error, asJSON bool) int {
	if err == nil {
		return 0
	}
	e := asError(err)
	switch {
	case e.Msg == "":
	case asJSON:
		b, _ := json.Marshal(struct { // strings
			Code    string `json:"code"`
			Message string `json:"message"`
			Hint    string `json:"hint"`
			Docs    string `json:"docs"`
		}{exitNames[e.Exit], e.Msg, e.Hint, docs})
		fmt.Fprintf(w, "%s\n", AppendJSON(nil, b))
	default:
		fmt.Fprintf(w, "meshtap: %s\n", Clean(e.Msg))
		if e.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", Clean(e.Hint))
		}
	}
	return e.Exit
}

func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(ExitTimeout, "the time given with --timeout is over")
	case errors.Is(err, context.Canceled):
		return Quiet(ExitInterrupted)
	}
	return Errorf(ExitFailure, "%v", err)
}
