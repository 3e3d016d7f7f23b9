// SPDX-License-Identifier: Apache-2.0

// Package filter chooses events by an expression in CEL, the Common Expression Language, such as
//
//	http.response.status_code >= 500 && meshtap.cluster == "payments"
//
// An expression sees the attributes of CloudEvents and the fields of every kind's data under the names that they have in
// an event; see docs/tap.md. A policy of the tap uses it before an event is encoded, the hub and the command line when
// they read events. What it may cost is bounded when it is compiled and again when it is evaluated.
//
// Nothing of CEL is made before the first expression is compiled: who uses none does not pay for it.
package filter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/nearest"
)

// The limits of an expression.
const (
	// MaxLength is its size in characters.
	MaxLength = 4096
	// MaxCost is what one evaluation may cost, in CEL's units, of which a comparison of numbers is about one.
	MaxCost = 10_000
	// MaxRegex is the size of the program that a regular expression becomes, in instructions.
	MaxRegex = 100

	maxDepth   = 64
	maxNodes   = 2000
	maxNesting = 2 // of comprehensions, such as exists
)

// Compiler compiles expressions. Any goroutine may use it.
type Compiler struct {
	env func() (*environment, error)
}

// environment is what expressions are compiled in.
type environment struct {
	*cel.Env
	names map[string]*variable
}

// NewCompiler returns a compiler, which costs nothing until it is used.
func NewCompiler() *Compiler { return &Compiler{env: sync.OnceValues(newEnv)} }

func newEnv() (*environment, error) {
	names := map[string]*variable{}
	opts := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(MaxLength), cel.ParserRecursionLimit(maxDepth), cel.ExpressionNodeLimit(maxNodes),
		cel.ParserErrorRecoveryLimit(1), cel.RegexProgramSizeLimit(MaxRegex), cel.DefaultUTCTimeZone(true),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting)),
	}
	for _, v := range variables() {
		names[v.name] = &v
		opts = append(opts, cel.Variable(v.name, v.typ))
	}
	env, err := cel.NewEnv(opts...)
	return &environment{env, names}, err
}

// Filter is a compiled expression. It is immutable.
type Filter struct {
	text    string
	program cel.Program
	names   map[string]*variable
}

// Error is what is wrong with an expression, and where.
type Error struct {
	// Line and Column are where, both from 1; 0 where it is the whole.
	Line, Column int
	Msg          string
}

// Error returns the position and what is wrong.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Msg
	}
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Msg)
}

// Compile returns the filter of an expression. The error is an *Error.
func (c *Compiler) Compile(text string) (*Filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{Msg: `the expression is empty; write one as http.response.status_code >= 500`}
	}
	env, err := c.env()
	if err != nil {
		return nil, &Error{Msg: err.Error()}
	}
	ast, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, env.explain(text, issues.Errors())
	}
	if t := ast.OutputType(); t != cel.BoolType {
		return nil, &Error{Line: 1, Column: 1, Msg: fmt.Sprintf("the expression is a %s, and must be true or false: compare it with something", t)}
	}
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, &Error{Msg: err.Error()}
	}
	if estimate.Max > MaxCost {
		return nil, &Error{Line: 1, Column: 1, Msg: fmt.Sprintf("one evaluation may cost up to %d, of which %d are allowed", estimate.Max, MaxCost)}
	}
	program, err := env.Program(ast, cel.CostLimit(MaxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &Error{Msg: err.Error()}
	}
	return &Filter{text, program, env.names}, nil
}

// sizes tells the compiler how long values can get, so that it knows what an expression costs at worst.
type sizes struct{}

// maxText is the longest text of an event, in bytes; see the limits of package eventtap.
const maxText = 256

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if n.Type() != nil && n.Type().Kind() == types.ListKind {
		return &cost.SizeEstimate{Min: 0, Max: event.MaxItems}
	}
	return &cost.SizeEstimate{Min: 0, Max: maxText}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// String returns the expression.
func (f *Filter) String() string { return f.text }

// Match reports whether the expression is true of an event. The error says why it could not be evaluated.
func (f *Filter) Match(e *event.Event) (bool, error) {
	out, _, err := f.program.Eval(&activation{e, f.names})
	if err != nil {
		return false, fmt.Errorf("filter: %w", err)
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, errors.New("filter: the expression is neither true nor false")
	}
	return yes, nil
}

// explain makes one error of those that the compiler found, which is the first.
func (env *environment) explain(text string, errs []*common.Error) *Error {
	first := errs[0]
	e := &Error{Line: max(first.Location.Line(), 0), Column: first.Location.Column() + 1, Msg: first.Message}
	switch {
	case strings.HasPrefix(e.Msg, "undeclared reference to"):
		name, column := nameAt(text, e.Line, first.Location.Column())
		e.Msg, e.Column = fmt.Sprintf("an event has no %q", name), column+1
		if s := nearest.Name(name, slices.Sorted(maps.Keys(env.names))); s != "" {
			e.Msg += fmt.Sprintf("; did you mean %s?", s)
		} else {
			e.Msg += "; allowed are the names of its attributes and fields, as type, subject and http.response.status_code, and CEL's functions"
		}
	case strings.HasPrefix(e.Msg, "found no matching overload"):
		e.Msg += "; both sides must have the same type: texts stand in quotes, numbers do not"
	}
	return e
}

// nameAt returns the name with dots around a place, and where in its line it begins. The line counts from 1, the column
// from 0.
func nameAt(text string, line, column int) (name string, from int) {
	for range line - 1 {
		_, text, _ = strings.Cut(text, "\n")
	}
	r := []rune(text)
	from = max(min(column, len(r)), 0)
	to := from
	for from > 0 && isName(r[from-1]) {
		from--
	}
	for to < len(r) && isName(r[to]) {
		to++
	}
	return string(r[from:to]), from
}

func isName(r rune) bool {
	return r == '.' || r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z'
}
