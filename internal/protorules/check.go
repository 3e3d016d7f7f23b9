// SPDX-License-Identifier: Apache-2.0

package protorules

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// checksOf makes the checks of a rule for single values, such as StringRules. kind is its name in FieldRules.
func checksOf(kind string, r protoreflect.Message, fd protoreflect.FieldDescriptor) []check {
	switch kind {
	case "string":
		return unlessEmpty(r, textChecks(r))
	case "bytes":
		return unlessEmpty(r, lengths(r, "min_len", "max_len", "bytes", "", func(v protoreflect.Value) int { return len(v.Bytes()) }))
	case "bool":
		return constant(r)
	case "enum":
		return enumChecks(r, fd)
	case "duration":
		return durationChecks(r)
	case "any", "timestamp":
		return nil
	default:
		return unlessEmpty(r, append(bounds(r, func(v protoreflect.Value) protoreflect.Value { return v }, func(v protoreflect.Value) string { return fmt.Sprint(v.Interface()) }), in(r, nil)...))
	}
}

// unlessEmpty makes zero values good where the rule says so.
func unlessEmpty(r protoreflect.Message, checks []check) []check {
	if !isSet(r, "ignore_empty") {
		return checks
	}
	for i, c := range checks {
		checks[i] = func(v protoreflect.Value) string {
			switch x := v.Interface().(type) {
			case string:
				if x == "" {
					return ""
				}
			case []byte:
				if len(x) == 0 {
					return ""
				}
			default:
				if fmt.Sprint(x) == "0" {
					return ""
				}
			}
			return c(v)
		}
	}
	return checks
}

func constant(r protoreflect.Message) []check {
	want, ok := get(r, "const")
	if !ok {
		return nil
	}
	return []check{func(v protoreflect.Value) string {
		if v.Equal(want) {
			return ""
		}
		return fmt.Sprint("value must equal ", want.Interface())
	}}
}

// in makes the checks of in and not_in. enum is nil where the values are no enum's.
func in(r protoreflect.Message, enum protoreflect.EnumDescriptor) (checks []check) {
	for _, rule := range []string{"in", "not_in"} {
		v, ok := get(r, rule)
		if !ok {
			continue
		}
		var all []protoreflect.Value
		var text []string
		for i := range v.List().Len() {
			all = append(all, v.List().Get(i))
			text = append(text, v.List().Get(i).String())
			if enum != nil {
				text[i] = string(enum.Values().ByNumber(protoreflect.EnumNumber(v.List().Get(i).Int())).Name())
			}
		}
		want, reason := rule == "in", "value must be in list ["+strings.Join(text, " ")+"]"
		if !want {
			reason = "value must not be in list [" + strings.Join(text, " ") + "]"
		}
		checks = append(checks, func(v protoreflect.Value) string {
			for _, a := range all {
				if number(a).Equal(number(v)) {
					return when(!want, reason)
				}
			}
			return when(want, reason)
		})
	}
	return checks
}

// number makes an enum's value one of the type that its rules have.
func number(v protoreflect.Value) protoreflect.Value {
	if n, ok := v.Interface().(protoreflect.EnumNumber); ok {
		return protoreflect.ValueOfInt32(int32(n))
	}
	return v
}

func when(wrong bool, reason string) string {
	if wrong {
		return reason
	}
	return ""
}

func enumChecks(r protoreflect.Message, fd protoreflect.FieldDescriptor) []check {
	checks := append(constant(r), in(r, fd.Enum())...)
	if !isSet(r, "defined_only") {
		return checks
	}
	values := fd.Enum().Values()
	return append(checks, func(v protoreflect.Value) string {
		return when(values.ByNumber(v.Enum()) == nil, "value must be one of the defined enum values")
	})
}

func durationChecks(r protoreflect.Message) []check {
	span := func(v protoreflect.Value) time.Duration {
		return v.Message().Interface().(*durationpb.Duration).AsDuration()
	}
	checks := bounds(r, func(v protoreflect.Value) protoreflect.Value { return protoreflect.ValueOfInt64(int64(span(v))) },
		func(v protoreflect.Value) string { return span(v).String() })
	if len(checks) == 0 {
		return nil
	}
	return []check{func(v protoreflect.Value) string {
		if v.Message().Interface().(*durationpb.Duration).CheckValid() != nil {
			return "value is not a valid duration"
		}
		return checks[0](v)
	}}
}

// bounds makes the check of lt, lte, gt and gte. comparable makes of a value, or of a bound, what can be compared.
func bounds(r protoreflect.Message, comparable func(protoreflect.Value) protoreflect.Value, text func(protoreflect.Value) string) []check {
	low, open := get(r, "gt")
	if !open {
		low, _ = get(r, "gte")
	}
	high, below := get(r, "lt")
	if !below {
		high, _ = get(r, "lte")
	}
	// A lower bound above the upper one forbids what is between them.
	between := low.IsValid() && high.IsValid() && compare(comparable(high), comparable(low)) <= 0
	reason := boundsText(low, high, open, below, between, text)
	if reason == "" {
		return nil
	}
	return []check{func(v protoreflect.Value) string {
		v = comparable(v)
		var tooLow, tooHigh bool
		if low.IsValid() {
			c := compare(v, comparable(low))
			tooLow = c < 0 || open && c == 0
		}
		if high.IsValid() {
			c := compare(v, comparable(high))
			tooHigh = c > 0 || below && c == 0
		}
		if between {
			return when(tooLow && tooHigh, reason)
		}
		return when(tooLow || tooHigh, reason)
	}}
}

func boundsText(low, high protoreflect.Value, open, below, between bool, text func(protoreflect.Value) string) string {
	either := func(first bool, a, b string) string {
		if first {
			return a
		}
		return b
	}
	switch {
	case between:
		return "value must be outside range " + either(below, "[", "(") + text(high) + ", " + text(low) + either(open, "]", ")")
	case low.IsValid() && high.IsValid():
		return "value must be inside range " + either(open, "(", "[") + text(low) + ", " + text(high) + either(below, ")", "]")
	case low.IsValid():
		return "value must be greater than " + either(open, "", "or equal to ") + text(low)
	case high.IsValid():
		return "value must be less than " + either(below, "", "or equal to ") + text(high)
	}
	return ""
}

// compare orders two values of one kind.
func compare(a, b protoreflect.Value) int {
	switch x := a.Interface().(type) {
	case int32:
		return cmp.Compare(int64(x), b.Int())
	case int64:
		return cmp.Compare(x, b.Int())
	case uint32:
		return cmp.Compare(uint64(x), b.Uint())
	case uint64:
		return cmp.Compare(x, b.Uint())
	case float32:
		return cmp.Compare(float64(x), b.Float())
	case float64:
		return cmp.Compare(x, b.Float())
	default:
		return strings.Compare(a.String(), b.String())
	}
}

func listLen(v protoreflect.Value) int { return v.List().Len() }
func mapLen(v protoreflect.Value) int  { return v.Map().Len() }

// lengths makes the check of a lower and an upper bound of how many there are: of items or pairs, which some is the name
// of, or of what the unit says.
func lengths(r protoreflect.Message, least, most, unit, some string, count func(protoreflect.Value) int) []check {
	low, hasLow := get(r, least)
	high, hasHigh := get(r, most)
	var reason string
	switch {
	case hasLow && hasHigh && some != "":
		reason = fmt.Sprintf("value must contain between %d and %d %s, inclusive", low.Uint(), high.Uint(), some)
	case hasLow && hasHigh:
		reason = fmt.Sprintf("value length must be between %d and %d %s, inclusive", low.Uint(), high.Uint(), unit)
	case hasLow && some != "":
		reason = fmt.Sprintf("value must contain at least %d %s", low.Uint(), unit)
	case hasLow:
		reason = fmt.Sprintf("value length must be at least %d %s", low.Uint(), unit)
	case hasHigh && some != "":
		reason = fmt.Sprintf("value must contain no more than %d %s", high.Uint(), unit)
	case hasHigh:
		reason = fmt.Sprintf("value length must be at most %d %s", high.Uint(), unit)
	default:
		return nil
	}
	return []check{func(v protoreflect.Value) string {
		n := uint64(count(v))
		return when(hasLow && n < low.Uint() || hasHigh && n > high.Uint(), reason)
	}}
}

// textChecks makes the checks of StringRules.
func textChecks(r protoreflect.Message) []check {
	checks := append(constant(r), in(r, nil)...)
	checks = append(checks, lengths(r, "min_len", "max_len", "runes", "", func(v protoreflect.Value) int { return utf8.RuneCountInString(v.String()) })...)
	checks = append(checks, lengths(r, "min_bytes", "max_bytes", "bytes", "", func(v protoreflect.Value) int { return len(v.String()) })...)
	if p, ok := get(r, "prefix"); ok {
		checks = append(checks, func(v protoreflect.Value) string {
			return when(!strings.HasPrefix(v.String(), p.String()), fmt.Sprintf("value does not have prefix %q", p.String()))
		})
	}
	if p, ok := get(r, "suffix"); ok {
		checks = append(checks, func(v protoreflect.Value) string {
			return when(!strings.HasSuffix(v.String(), p.String()), fmt.Sprintf("value does not have suffix %q", p.String()))
		})
	}
	if pattern := patternOf(r); pattern != "" {
		re := regexp.MustCompile(pattern)
		checks = append(checks, func(v protoreflect.Value) string {
			return when(!re.MatchString(v.String()), fmt.Sprintf("value does not match regex pattern %q", pattern))
		})
	}
	return checks
}

// patternOf returns the expression of a string rule, its own or that of the name or value of a header field.
func patternOf(r protoreflect.Message) string {
	if p, ok := get(r, "pattern"); ok {
		return p.String()
	}
	known, ok := get(r, "well_known_regex")
	if !ok {
		return ""
	}
	if strict, ok := get(r, "strict"); ok && !strict.Bool() {
		return "^[^\u0000\u000A\u000D]*$"
	}
	if known.Enum() == 1 {
		return "^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$"
	}
	return "^[^\u0000-\u0008\u000A-\u001F\u007F]*$"
}
