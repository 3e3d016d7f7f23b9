// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"regexp"
	"testing"
)

// TestIDs: one byte of an id after the other is every byte there is.
func TestIDs(t *testing.T) {
	t.Parallel()
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, tc := range []struct {
		name, id string
		is       func([]byte) bool
		want     *regexp.Regexp
	}{
		{"request id", "4bf92f35-77B3", isRequestID, regexp.MustCompile(`^[-0-9A-Za-z]*$`)},
		{"traceparent", trace, isTraceParent, regexp.MustCompile(`^([0-9a-e][0-9a-f]|f[0-9a-e])-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for i := range tc.id {
				for c := range 256 {
					id := []byte(tc.id)
					id[i] = byte(c)
					if got, want := tc.is(id), tc.want.Match(id); got != want {
						t.Fatalf("%q: %v, want %v", id, got, want)
					}
				}
			}
			if is := tc.is([]byte(tc.id)[:0]); is != tc.want.MatchString("") {
				t.Errorf("nothing: %v", is)
			}
		})
	}
	if isTraceParent([]byte("ff"+trace[2:])) || isTraceParent([]byte(trace+"0")) {
		t.Error("a version or a length that is not known was taken")
	}
}
