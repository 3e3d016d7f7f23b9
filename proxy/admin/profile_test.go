// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/meshtap/meshtap/proxy/admin"
)

// TestProfile: each kind answers with what pprof reads, which is gzip; what cannot be is refused.
func TestProfile(t *testing.T) {
	f := &fake{}
	_, c := start(t, admin.Config{Profiles: true}, f.views(), registry())
	for query, status := range map[string]int{
		"?seconds=1": 200, "?kind=heap": 200, "?kind=goroutine": 200,
		"?seconds=0": 400, "?seconds=121": 400, "?seconds=x": 400, "?kind=cheap": 400, "?minutes=1": 400,
	} {
		res, r := open(t, c, "/profile"+query, nil)
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status || status == 200 && !bytes.HasPrefix(b, []byte("\x1f\x8b")) {
			t.Errorf("%s: %d with %d bytes %.60q", query, res.StatusCode, len(b), b)
		}
	}
}

// TestProfilesAreOff: none is given where nobody asked for them at the start.
func TestProfilesAreOff(t *testing.T) {
	t.Parallel()
	_, c := start(t, admin.Config{}, (&fake{}).views(), registry())
	if res, body := c.do(t, "GET", "/profile?kind=heap"); res.StatusCode != 403 || body != "profiles are off; start with --enable-profiles\n" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}
