// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/meshtap/meshtap/internal/expr"
	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/mesh"
)

// Expression is a filter in CEL over Envoy's attributes, such as
//
//	response.code >= 500 && request.headers['x-team'] == 'web'
//
// It is Envoy's envoy.access_loggers.extension_filters.cel: what cannot be evaluated, such as an attribute that is not
// there, is not logged; nothing loops; and there are no conversions to text and no texts put together. Envoy finds out that
// types do not fit when it evaluates an expression, and logs nothing then; here it is refused, as are unknown names.
type Expression struct{ test *expr.Test }

// The bounds of an expression. As nothing loops, the cost grows with the length of the texts that are looked at, which
// a request's head bounds.
const (
	maxText = 60 << 10
	maxCost = 1_000_000
)

// Passes reports whether the expression is true of an outcome.
func (e *Expression) Passes(o *mesh.Outcome) bool {
	yes, err := e.test.Eval((*activation)(o))
	return yes && err == nil
}

// String returns the expression.
func (e *Expression) String() string { return e.test.String() }

// newLanguage makes what expressions are compiled with. It is called for the first of them.
func newLanguage() (*expr.Language, error) {
	reg, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	p := &provider{reg, attributes()}
	opts := append(expr.Options(), cel.CustomTypeAdapter(reg), cel.CustomTypeProvider(p), cel.CrossTypeNumericComparisons(true),
		cel.StdLib(cel.StdLibSubset(subset())))
	for name := range p.objects {
		if name != locality {
			opts = append(opts, cel.Variable(name, cel.ObjectType(name)))
		}
	}
	e, err := cel.NewCustomEnv(opts...)
	return &expr.Language{
		Env: e, MaxCost: maxCost, MaxText: maxText, Example: "response.code >= 500", Unknown: p.unknown,
	}, err
}

// subset is the standard library without what Envoy turns off, and without the number of headers, which nobody counts.
func subset() *env.LibrarySubset {
	not := func(function string, ids ...string) *env.Function {
		f := env.NewFunction(function)
		for _, id := range ids {
			f.Overloads = append(f.Overloads, env.NewOverload(id, nil, nil))
		}
		return f
	}
	return env.NewLibrarySubset().AddIncludedMacros(operators.Has).AddExcludedFunctions(
		not(overloads.TypeConvertString),
		not(operators.Add, overloads.AddString, overloads.AddBytes, overloads.AddList),
		not(overloads.Size, overloads.SizeMap, overloads.SizeMapInst),
	)
}

// provider tells CEL what the objects have.
type provider struct {
	*types.Registry
	objects map[string]map[string]attribute
}

var errAbsent = errors.New("there is no such value")

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	_, ok := p.objects[name]
	return types.NewTypeTypeWithParam(types.NewObjectType(name)), ok
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	o, ok := p.objects[name]
	return slices.Sorted(maps.Keys(o)), ok
}

// FindStructFieldType implements types.Provider. The value of every object is the outcome.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	a, ok := p.objects[name][field]
	return &types.FieldType{
		Type:  a.typ,
		IsSet: func(o any) bool { return a.get(o.(*mesh.Outcome)) != nil },
		GetFrom: func(o any) (any, error) {
			if v := a.get(o.(*mesh.Outcome)); v != nil {
				return v, nil
			}
			if a.zero != nil {
				return a.zero, nil
			}
			return nil, errAbsent
		},
	}, ok
}

// NewValue implements types.Provider: an expression cannot make objects.
func (*provider) NewValue(name string, _ map[string]ref.Val) ref.Val {
	return types.NewErr("%s cannot be made", name)
}

// unknown says what is wrong with a name.
func (p *provider) unknown(name string) string {
	msg := fmt.Sprintf("there is no %q here", name)
	object, _, _ := strings.Cut(name, ".")
	if slices.Contains([]string{"metadata", "filter_state", "upstream_filter_state"}, object) {
		return msg + ": nothing sets it"
	}
	var all, like []string
	for o, attributes := range p.objects {
		if o == locality {
			continue
		}
		for a := range attributes {
			all = append(all, o+"."+a)
			if o == object {
				like = append(like, o+"."+a)
			}
		}
	}
	slices.Sort(all)
	slices.Sort(like)
	switch s := nearest.Name(name, all); {
	case s != "":
		return msg + fmt.Sprintf("; did you mean %s?", s)
	case like != nil:
		return msg + "; allowed are " + strings.Join(like, ", ")
	}
	return msg + "; allowed are connection, destination, request, response, source, upstream and xds with what they have, and CEL's " +
		"functions without those that loop or make texts"
}

// activation lends an outcome to an evaluation.
type activation mesh.Outcome

// ResolveName returns the value of an object, which is the outcome.
func (a *activation) ResolveName(string) (any, bool) { return (*mesh.Outcome)(a), true }

// Parent returns nil: there is nothing else.
func (*activation) Parent() interpreter.Activation { return nil }

var (
	_ interpreter.Activation = (*activation)(nil)
	_ types.Provider         = (*provider)(nil)
)
