// SPDX-License-Identifier: Apache-2.0

// Package resourcetest helps tests of configuration: it writes mesh values as text that can be compared and reviewed,
// and it has a set of extensions that stand for the real ones.
package resourcetest

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"
)

// contentKey is a field that holds a digest: it changes with the library that serializes.
const contentKey = "Key"

// Dump writes a value as indented text: one line per field, in the order of the type, without fields that are zero.
func Dump(v any) string {
	var b strings.Builder
	dump(&b, "", "", reflect.ValueOf(v))
	return b.String()
}

func dump(b *strings.Builder, indent, label string, v reflect.Value) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if s, ok := scalar(v); ok {
			line(b, indent, label, s)
			return
		}
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if s, ok := scalar(v); ok {
		line(b, indent, label, s)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.NumField() == 0 || v.IsZero() {
			line(b, indent, label, "{}")
			return
		}
		line(b, indent, label, "")
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; !v.Field(i).IsZero() && name != contentKey {
				dump(b, deeper(indent, label), name, v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			dump(b, indent, fmt.Sprintf("%s[%d]", label, i), v.Index(i))
		}
	case reflect.Map:
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			dump(b, indent, fmt.Sprintf("%s[%q]", label, k.String()), v.MapIndex(k))
		}
	}
}

func deeper(indent, label string) string {
	if label == "" {
		return indent
	}
	return indent + "  "
}

func line(b *strings.Builder, indent, label, text string) {
	if label == "" {
		if text != "" {
			fmt.Fprintln(b, text)
		}
		return
	}
	if text != "" {
		text = " " + text
	}
	fmt.Fprintf(b, "%s%s:%s\n", indent, label, text)
}

func scalar(v reflect.Value) (string, bool) {
	if !v.CanInterface() {
		return "", false
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String(), true
	case *regexp.Regexp:
		if x == nil {
			return "", false
		}
		return x.String(), true
	case netip.AddrPort:
		return x.String(), true
	case netip.Prefix:
		return x.String(), true
	case []byte:
		return fmt.Sprintf("%q", x), true
	case *x509.Certificate:
		if x == nil {
			return "", false
		}
		return "certificate of " + x.Subject.CommonName, true
	}
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("%q", v.String()), true
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float64:
		return fmt.Sprint(v.Interface()), true
	}
	return "", false
}
