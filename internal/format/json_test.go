// SPDX-License-Identifier: Apache-2.0

package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestParseJSON(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"constants", `{"s":"a\"b<é>/","n":2,"f":2.5,"big":123456789012,"e":1e20,"neg":-3,"t":true,"z":null,"e2":""}`,
			`{"big":123456789012,"e":1e+20,"e2":"","f":2.5,"n":2,"neg":-3,"s":"a\"b<é>/","t":true,"z":null}`},
		{"formats", `{"d":"%DURATION%","mix":"%DURATION%ms","pct":"100%%"}`, `{"d":<DURATION>,"mix":<DURATION "ms">,"pct":"100%"}`},
		{"nested", `{"b":{"y":["%PROTOCOL%",1,[null,{}]],"x":{}},"a":[]}`, `{"a":[],"b":{"x":{},"y":[<PROTOCOL>,1,[null,{}]]}}`},
		{"empty", `{}`, `{}`},
		{"key with quote", `{"a\"\n":1}`, `{"a\"\n":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var in map[string]any
			if err := json.Unmarshal([]byte(tt.in), &in); err != nil {
				t.Fatal(err)
			}
			j, err := ParseJSON(in)
			if err != nil {
				t.Fatal(err)
			}
			if got := showJSON(j); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func showJSON(j *JSON) string {
	var parts []string
	switch {
	case j.Const != "":
		return j.Const
	case j.Format != nil:
		return "<" + show(j.Format) + ">"
	case j.Fields != nil:
		for _, f := range j.Fields {
			parts = append(parts, f.Key+showJSON(f.Value))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	for _, v := range j.Items {
		parts = append(parts, showJSON(v))
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func TestParseJSONErrors(t *testing.T) {
	t.Parallel()
	deep := any("x")
	for range maxDepth + 1 {
		deep = []any{deep}
	}
	tests := []struct {
		name string
		in   map[string]any
		want string
	}{
		{"operator", map[string]any{"a": map[string]any{"b": []any{"ok", "x%NOPE%"}}}, "a.b[1]: column 2: unknown operator %NOPE%"},
		{"number", map[string]any{"n": math.Inf(1)}, "n: +Inf is not a JSON number"},
		{"type", map[string]any{"n": 1}, "n: int is not a JSON value"},
		{"depth", map[string]any{"d": deep}, "nested deeper than 100"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseJSON(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			var e *Error
			if tt.name == "operator" && !errors.As(err, &e) {
				t.Error("the *Error is not in the chain", fmt.Sprintf("%T", err))
			}
		})
	}
}
