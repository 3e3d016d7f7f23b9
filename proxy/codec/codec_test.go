// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, only, query string }{
		{"/", "/", "<nil>"}, {"/a?", "/a", ""}, {"/a?b?c", "/a", "b?c"}, {"", "", "<nil>"}, {"*", "*", "<nil>"},
	} {
		r := Request{Path: []byte(c.path)}
		query := "<nil>"
		if q := r.Query(); q != nil {
			query = string(q)
		}
		if string(r.PathOnly()) != c.only || query != c.query {
			t.Errorf("%q: %q, %q", c.path, r.PathOnly(), query)
		}
	}
}

func TestBodiless(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method string
		status int
		want   bool
	}{{"GET", 200, false}, {"HEAD", 200, true}, {"HEAD", 404, true}, {"GET", 204, true}, {"GET", 304, true}, {"POST", 205, false}} {
		if got := Bodiless([]byte(c.method), c.status); got != c.want {
			t.Errorf("%s %d: %v", c.method, c.status, got)
		}
	}
}

// TestHeld: a path and an authority that are set live with the request, whatever becomes of the bytes they came in, and a
// reset request keeps nothing of them but memory.
func TestHeld(t *testing.T) {
	t.Parallel()
	var r Request
	b := []byte("/path")
	r.SetPath(b)
	copy(b, "xxxxx")
	b = []byte("host")
	r.SetAuthority(b)
	copy(b, "xxxx")
	for range 100 {
		r.Header.AddString("a", strings.Repeat("b", 50)) // the list's memory moves
	}
	if string(r.Path) != "/path" || string(r.Authority) != "host" || !r.HostStale {
		t.Errorf("%q %q", r.Path, r.Authority)
	}
	r.Reset()
	if r.Path != nil || r.Authority != nil || r.HostStale || r.Header.Len() != 0 {
		t.Errorf("%+v", r)
	}
}
