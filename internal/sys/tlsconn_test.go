// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"crypto/tls"
	"reflect"
	"testing"
)

// TestBuffersOf fails where a new version of Go keeps them elsewhere: then idle TLS connections hold more than they should.
func TestBuffersOf(t *testing.T) {
	t.Parallel()
	c := tls.Client(nil, &tls.Config{})
	b := BuffersOf(c)
	if b == nil {
		t.Fatal("crypto/tls keeps its buffers under other names")
	}
	b.Raw.WriteString("raw")
	b.Hand.WriteString("hand")
	b.Input.Reset([]byte("input"))
	v := reflect.ValueOf(c).Elem()
	for name, want := range map[string]int{"rawInput": 3, "hand": 4} {
		if got := v.FieldByName(name).FieldByName("buf").Len(); got != want {
			t.Errorf("%s has %d bytes, want %d", name, got, want)
		}
	}
	if got := v.FieldByName("input").FieldByName("s").Len(); got != 5 {
		t.Errorf("input has %d bytes, want 5", got)
	}
	if f := fieldOf(c, "rawInput", reflect.TypeFor[int]()); f != nil {
		t.Error("a field of another type was found")
	}
}
