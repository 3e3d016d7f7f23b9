// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/event"
	cel "github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/mesh"
)

// filter chooses events. Flags of one name add up: an event has to match one of them. Flags of different names all have
// to match. --not turns the next flag around: an event must not match it. Lost events pass unless --not --type lost says
// otherwise, because who reads a part must know of gaps.
type filter struct {
	conditions []condition
	not        bool // --not was given and waits for its flag
}

// condition is one flag.
type condition struct {
	name  string
	not   bool
	match func(*shown) bool
	text  string // as it was written
}

// shown is an event with the names that a person knows: who called whom.
type shown struct {
	*event.Event
	from, to string
}

const (
	typeFlag = "type"
	celFlag  = "filter"
)

// add adds the flags to a verb.
func (f *filter) add(cmd *cobra.Command) {
	s := cmd.Flags()
	for _, v := range []struct {
		name, usage string
		parse       func(string) (func(*shown) bool, error)
	}{
		{"service", "`name`: either side is this service; * stands for anything", parseService},
		{"from", "`name`: the caller is this service", parseFrom},
		{"to", "`name`: the called service or cluster is this", parseTo},
		{"status", "`codes`: 503, 5xx, 4xx-5xx, 500-504 and the like", parseStatus},
		{typeFlag, "`kinds`: request, circuit, ejection, health, config, lifecycle...", parseKinds},
		{"route", "`name`: the route's name or template is this, as /orders/*", parseRoute},
		{"method", "`names`: HTTP methods, as GET,PUT", parseMethods},
		{"flags", "`flags`: any of these response flags, as UF,UO", parseFlags},
		{"slow", "`time`: took at least so long, as 250ms", parseSlow},
		{celFlag, "`CEL`: this expression is true of the event, by its own names", parseCEL},
	} {
		s.Var(&filterFlag{f, v.name, v.parse}, v.name, v.usage)
	}
	s.VarPF((*notFlag)(f), "not", "", "turn the next filter around").NoOptDefVal = "true"
	cli.NoEnv(cmd, "not")
	cli.Complete(cmd, typeFlag, kindNames...)
}

// check refuses a --not that stands alone.
func (f *filter) check() error {
	if f.not {
		return cli.Usage("write it in front of a filter, as --not --status 2xx", "--not has no filter behind it")
	}
	return nil
}

// passes reports whether the event is to be shown.
func (f *filter) passes(e *shown) bool {
	for _, c := range f.conditions {
		if c.not && c.match(e) || !c.not && e.Kind != event.Lost && !f.matched(c.name, e) {
			return false
		}
	}
	return true
}

// matched reports whether one of the flags of a name matches.
func (f *filter) matched(name string, e *shown) bool {
	return slices.ContainsFunc(f.conditions, func(c condition) bool { return c.name == name && !c.not && c.match(e) })
}

// kinds returns the kinds that can pass, nil where all can. Lost events can unless a flag says otherwise, as in passes.
func (f *filter) kinds() []event.Kind {
	var out []event.Kind
	all := true
	for k := event.Request; k < event.NumKinds; k++ {
		e := &shown{Event: &event.Event{Kind: k}}
		pass := true
		for _, c := range f.conditions {
			if c.name == typeFlag {
				pass = pass && (c.not && !c.match(e) || !c.not && (k == event.Lost || f.matched(typeFlag, e)))
			}
		}
		if all = all && pass; pass {
			out = append(out, k)
		}
	}
	if all {
		return nil
	}
	return out
}

// expression is what --filter says in all, for a proxy to choose by; "" where it says nothing.
func (f *filter) expression() string {
	var any, all []string
	for _, c := range f.conditions {
		switch {
		case c.name != celFlag:
		case c.not:
			all = append(all, "!("+c.text+"\n)")
		default:
			any = append(any, "("+c.text+"\n)") // a comment ends with its line
		}
	}
	if len(any) > 0 {
		all = append(all, "("+strings.Join(any, " || ")+")")
	}
	return strings.Join(all, " && ")
}

// filterFlag is a pflag.Value that adds a condition.
type filterFlag struct {
	f     *filter
	name  string
	parse func(string) (func(*shown) bool, error)
}

// Set adds a condition.
func (v *filterFlag) Set(s string) error {
	match, err := v.parse(s)
	if err != nil {
		return err
	}
	v.f.conditions = append(v.f.conditions, condition{v.name, v.f.not, match, s})
	v.f.not = false
	return nil
}

// String returns the default, which is nothing.
func (v *filterFlag) String() string { return "" }

// Type names what the flag takes.
func (v *filterFlag) Type() string { return "string" }

// notFlag is --not.
type notFlag filter

// Set turns the next flag around.
func (v *notFlag) Set(s string) error {
	on, err := strconv.ParseBool(s)
	v.not = on
	return err
}

// String returns the default.
func (v *notFlag) String() string { return "false" }

// Type names what the flag takes.
func (v *notFlag) Type() string { return "bool" }

// IsBoolFlag says that the flag needs no value.
func (v *notFlag) IsBoolFlag() bool { return true }

// anyOf returns a condition that one of several names, each of which may hold *, is what get returns.
func anyOf(s string, get func(*shown) []string) (func(*shown) bool, error) {
	patterns := strings.Split(s, ",")
	for _, p := range patterns {
		if p == "" {
			return nil, fmt.Errorf("%q holds an empty name; * stands for anything", s)
		}
	}
	return func(e *shown) bool {
		for _, name := range get(e) {
			for _, p := range patterns {
				if name != "" && matches(p, name) {
					return true
				}
			}
		}
		return false
	}, nil
}

// matches reports whether a name is as the pattern says, in which * stands for anything.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(name, parts[0])
	last := len(parts) - 1
	if !ok || last == 0 {
		return ok && rest == ""
	}
	for _, p := range parts[1:last] { // the first place is as good as any other
		if _, rest, ok = strings.Cut(rest, p); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, parts[last])
}

func parseService(s string) (func(*shown) bool, error) {
	return anyOf(s, func(e *shown) []string { return []string{e.from, e.to, e.text(event.Cluster)} })
}

func parseFrom(s string) (func(*shown) bool, error) {
	return anyOf(s, func(e *shown) []string { return []string{e.from} })
}

func parseTo(s string) (func(*shown) bool, error) {
	return anyOf(s, func(e *shown) []string { return []string{e.to, e.text(event.Cluster)} })
}

func parseRoute(s string) (func(*shown) bool, error) {
	return anyOf(s, func(e *shown) []string { return []string{e.text(event.Route), e.text(event.RouteName)} })
}

func parseMethods(s string) (func(*shown) bool, error) {
	return anyOf(strings.ToUpper(s), func(e *shown) []string { return []string{e.text(event.Method)} })
}

// parseCEL reads an expression. An event on which it fails does not match.
func parseCEL(s string) (func(*shown) bool, error) {
	f, err := cel.NewCompiler().Compile(s)
	if err != nil {
		return nil, err
	}
	return func(e *shown) bool {
		yes, err := f.Match(e.Event)
		return err == nil && yes
	}, nil
}

func parseSlow(s string) (func(*shown) bool, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return nil, fmt.Errorf("%q is no time, such as 250ms or 1.5s", s)
	}
	return func(e *shown) bool {
		return (e.Kind == event.Request || e.Kind == event.Connection) && e.Numbers[event.Duration] >= int64(d)
	}, nil
}

// kindNames are the kinds as --type has them. A request's kind is "outcome" on the wire, which is understood as well.
var kindNames = []string{"request", "connection", "circuit", "health", "ejection", "config", "lifecycle", "lost", "attempt", "certificate"}

func parseKinds(s string) (func(*shown) bool, error) {
	var kinds []event.Kind
	for _, name := range strings.Split(s, ",") {
		k := event.ParseKind(name)
		if name == "request" {
			k = event.Request
		}
		if k == event.Unknown {
			return nil, fmt.Errorf("%q is no kind of event; %s", name, cli.DidYouMean(name, kindNames))
		}
		kinds = append(kinds, k)
	}
	return func(e *shown) bool { return slices.Contains(kinds, e.Kind) }, nil
}

func parseFlags(s string) (func(*shown) bool, error) {
	var want []string
	for _, name := range strings.Split(s, ",") {
		f, ok := mesh.ParseFlag(name)
		if !ok {
			return nil, fmt.Errorf("%q is no response flag; meshtap explain lists them", name)
		}
		want = append(want, f.String())
	}
	return func(e *shown) bool {
		for f := range strings.SplitSeq(e.text(event.ResponseFlags), ",") {
			if slices.Contains(want, f) {
				return true
			}
		}
		return false
	}, nil
}

// parseStatus reads codes and classes, and spans of them.
func parseStatus(s string) (func(*shown) bool, error) {
	var spans [][2]int64
	for _, part := range strings.Split(s, ",") {
		low, high, isSpan := strings.Cut(part, "-")
		if !isSpan {
			high = low
		}
		from, _, err1 := codes(low, part)
		_, to, err2 := codes(high, part)
		if err := cmp.Or(err1, err2); err != nil {
			return nil, err
		}
		if from > to {
			return nil, fmt.Errorf("%q ends before it begins", part)
		}
		spans = append(spans, [2]int64{from, to})
	}
	return func(e *shown) bool {
		n := e.Numbers[event.Status]
		return e.Kind == event.Request && slices.ContainsFunc(spans, func(s [2]int64) bool { return s[0] <= n && n <= s[1] })
	}, nil
}

// codes returns the first and the last status of a code or a class. part is what it was written in.
func codes(s, part string) (from, to int64, err error) {
	digits, class := s, false
	if strings.HasSuffix(strings.ToLower(s), "xx") {
		digits, class = s[:len(s)-2]+"00", true
	}
	n, err := strconv.ParseUint(digits, 10, 10)
	switch {
	case s == "0":
		return 0, 0, nil
	case err != nil || len(digits) != 3 || n < 100 || n > 599:
		return 0, 0, fmt.Errorf("%q is no status; 503, 5xx, 4xx-5xx and 500-504 are, and 0 where none was sent", part)
	case class:
		return int64(n), int64(n) + 99, nil
	}
	return int64(n), int64(n), nil
}

func (e *shown) text(t event.Text) string { return string(e.Texts[t]) }
