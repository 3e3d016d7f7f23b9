// SPDX-License-Identifier: Apache-2.0

// Package expr compiles tests that are written in CEL, the Common Expression Language. Others say what an expression can
// name; what it may be and may cost is bounded here, when it is compiled and again when it is evaluated, and errors tell
// the place. The filters of events (eventtap/filter) and those of access logs (proxy/accesslog) are made with it.
package expr

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
)

// The limits of an expression.
const (
	// MaxLength is its size in characters.
	MaxLength = 4096
	// maxRegex is the size of the program that a regular expression becomes, in instructions.
	maxRegex = 100

	maxDepth   = 64
	maxNodes   = 2000
	maxNesting = 2 // of comprehensions, such as exists
)

// Options are what every environment is made with.
func Options() []cel.EnvOption {
	return []cel.EnvOption{
		cel.ParserExpressionSizeLimit(MaxLength), cel.ParserRecursionLimit(maxDepth), cel.ExpressionNodeLimit(maxNodes),
		cel.ParserErrorRecoveryLimit(1), cel.RegexProgramSizeLimit(maxRegex), cel.DefaultUTCTimeZone(true),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting)),
	}
}

// Language is what expressions of one kind are made of. It is immutable.
type Language struct {
	// Env declares what they can name. It is made with Options, among others.
	Env *cel.Env
	// MaxCost is what one evaluation may cost, in CEL's units, of which a comparison of numbers is about one. MaxText and
	// MaxItems are the longest text that a name can stand for, in bytes, and the longest list: the cost is at worst.
	MaxCost, MaxText, MaxItems uint64
	// Example stands in the message for an expression that is empty. Unknown says what is wrong with a name that Env does
	// not have, dots and all.
	Example string
	Unknown func(name string) string
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

// Test is a compiled expression that is true or false. It is immutable.
type Test struct {
	text    string
	program cel.Program
}

// Compile compiles a test. The error is an *Error.
func (l *Language) Compile(text string) (*Test, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{Msg: "the expression is empty; write one as " + l.Example}
	}
	ast, issues := l.Env.Compile(text)
	if issues.Err() != nil {
		return nil, l.explain(text, issues.Errors())
	}
	if t := ast.OutputType(); t != cel.BoolType {
		return nil, &Error{Line: 1, Column: 1, Msg: fmt.Sprintf("the expression is a %s, and must be true or false: compare it with something", t)}
	}
	estimate, err := l.Env.EstimateCost(ast, sizes{l})
	if err != nil {
		return nil, &Error{Msg: err.Error()}
	}
	if estimate.Max > l.MaxCost {
		return nil, &Error{Line: 1, Column: 1, Msg: fmt.Sprintf("one evaluation may cost up to %d, of which %d are allowed", estimate.Max, l.MaxCost)}
	}
	program, err := l.Env.Program(ast, cel.CostLimit(l.MaxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &Error{Msg: err.Error()}
	}
	return &Test{text, program}, nil
}

// String returns the expression.
func (t *Test) String() string { return t.text }

// Eval reports whether the expression is true where names stand for what a cel.Activation says. The error says why it
// could not be evaluated.
func (t *Test) Eval(names cel.Activation) (bool, error) {
	out, _, err := t.program.Eval(names)
	if err != nil {
		return false, err
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, errors.New("the expression is neither true nor false")
	}
	return yes, nil
}

// sizes tells the compiler how long values can get, so that it knows what an expression costs at worst.
type sizes struct{ *Language }

func (l sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if n.Type() != nil && n.Type().Kind() == types.ListKind {
		return &cost.SizeEstimate{Min: 0, Max: l.MaxItems}
	}
	return &cost.SizeEstimate{Min: 0, Max: l.MaxText}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// explain makes one error of those that the compiler found, which is the first.
func (l *Language) explain(text string, errs []*common.Error) *Error {
	first := errs[0]
	e := &Error{Line: max(first.Location.Line(), 0), Column: first.Location.Column() + 1, Msg: first.Message}
	switch {
	case strings.HasPrefix(e.Msg, "undeclared reference to"), strings.HasPrefix(e.Msg, "undefined field"):
		name, column := nameAt(text, e.Line, first.Location.Column())
		e.Msg, e.Column = l.Unknown(name), column+1
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
