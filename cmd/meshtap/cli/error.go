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

// ExitCode is one of the codes that a verb ends with.
type ExitCode struct {
	Code int
	// Name is the code as programs read it, in errors in JSON; "" for 0, which is no error.
	Name, Meaning string
}

// ExitCodes returns all of them.
func ExitCodes() []ExitCode {
	return []ExitCode{
		{0, "", "All went well. Warnings of `config validate` alone are 0, too."},
		{ExitFailure, "failure", "Something else went wrong; the message says what. The proxy ends with it where it cannot start for another reason than its bootstrap, such as a port in use."},
		{ExitUsage, "usage", "The command line, a variable or the context file cannot be meant."},
		{ExitConfig, "config_invalid", "The bootstrap has errors. `serve`, `--mode validate` and `config validate` tell them alike."},
		{ExitUnreachable, "not_reachable", "No proxy, or no bus, could be reached."},
		{ExitProblems, "problems_found", "`status`: something is refused, waits, or is not connected; `config diff`: there are differences. What was found is on standard output."},
		{ExitPartial, "partial_result", "Some proxies did not answer; what the others said is on standard output."},
		{ExitTimeout, "timeout", "The time of `--timeout` is over."},
		{ExitInterrupted, "interrupted", "An interrupt (Ctrl-C) or SIGTERM ended it. The proxy itself ends with 0 after it has drained."},
	}
}

func exitName(code int) string {
	for _, c := range ExitCodes() {
		if c.Code == code {
			return c.Name
		}
	}
	return ""
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
		}{exitName(e.Exit), e.Msg, e.Hint, docs})
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
