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
	"fmt"
	"maps"
	"slices"
	"sync"

	"cel.dev/cel-go/cel"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/expr"
	"github.com/meshtap/meshtap/internal/nearest"
)

// The limits of an expression; see also package internal/expr.
const (
	// MaxLength is its size in characters.
	MaxLength = expr.MaxLength
	// MaxCost is what one evaluation may cost, in CEL's units, of which a comparison of numbers is about one.
	MaxCost = 10_000

	maxText = 256 // the longest text of an event, in bytes; see the limits of package eventtap
)

// Error is what is wrong with an expression, and where.
type Error = expr.Error

// Compiler compiles expressions. Any goroutine may use it.
type Compiler struct {
	env func() (*environment, error)
}

// environment is what expressions are compiled in.
type environment struct {
	expr.Language
	names map[string]*variable
}

// NewCompiler returns a compiler, which costs nothing until it is used.
func NewCompiler() *Compiler { return &Compiler{env: sync.OnceValues(newEnv)} }

func newEnv() (*environment, error) {
	names := map[string]*variable{}
	opts := expr.Options()
	for _, v := range variables() {
		names[v.name] = &v
		opts = append(opts, cel.Variable(v.name, v.typ))
	}
	env, err := cel.NewEnv(opts...)
	e := &environment{names: names}
	e.Language = expr.Language{
		Env: env, MaxCost: MaxCost, MaxText: maxText, MaxItems: event.MaxItems,
		Example: "http.response.status_code >= 500", Unknown: e.unknown,
	}
	return e, err
}

// unknown says what is wrong with a name.
func (env *environment) unknown(name string) string {
	msg := fmt.Sprintf("an event has no %q", name)
	if s := nearest.Name(name, slices.Sorted(maps.Keys(env.names))); s != "" {
		return msg + fmt.Sprintf("; did you mean %s?", s)
	}
	return msg + "; allowed are the names of its attributes and fields, as type, subject and http.response.status_code, and CEL's functions"
}

// Filter is a compiled expression. It is immutable.
type Filter struct {
	test  *expr.Test
	names map[string]*variable
}

// Compile returns the filter of an expression. The error is an *Error.
func (c *Compiler) Compile(text string) (*Filter, error) {
	env, err := c.env()
	if err != nil {
		return nil, &Error{Msg: err.Error()}
	}
	test, err := env.Compile(text)
	if err != nil {
		return nil, err
	}
	return &Filter{test, env.names}, nil
}

// String returns the expression.
func (f *Filter) String() string { return f.test.String() }

// Match reports whether the expression is true of an event. The error says why it could not be evaluated.
func (f *Filter) Match(e *event.Event) (bool, error) {
	yes, err := f.test.Eval(&activation{e, f.names})
	if err != nil {
		return false, fmt.Errorf("filter: %w", err)
	}
	return yes, nil
}
