// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// A thousand requests with secrets and personal data in every place that a client writes: none of it is in an event, on
// standard output, in a file, on the disk of a spool, in the log or in the counters (F88).
func TestNothingPersonal(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"tap.yaml", "tap-spool.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			r := examples.NewRig(t)
			r.Start(r.Read(file), "")
			if r.Bus != nil {
				r.Bus.Kill() // so that events stay on the disk
			}
			rounds := 250
			for range rounds {
				for _, q := range []examples.Request{
					{Path: "/private/jane.doe@example.com/4111111111111111", Header: []string{"authorization: Bearer eyJhbGciOiJIUzI1NiJ9"}},
					{Path: "/?token=s3cr3t&mail=jane.doe@example.com", Header: []string{"cookie: session=s3cr3t", "user-agent: s3cr3t"}},
					{Method: "POST", Path: "/", Body: "card=4111111111111111", Header: []string{"x-request-id: jane.doe@example.com", "referer: http://s3cr3t/"}},
					{Path: "/", Host: "s3cr3t.example", Header: []string{"x-forwarded-for: 4111111111111111", "traceparent: s3cr3t", "x-do: status=500"}},
				} {
					r.Do(q)
				}
			}
			least := int64(4 * rounds)
			if r.Bus != nil {
				least = int64(rounds) // some are sampled
			}
			r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["meshtap.tap.produced"] >= least })
			tellsNothing(t, r)
		})
	}
}

// tellsNothing ends the proxy, and looks for what was planted in everything that it has written, which it returns.
func tellsNothing(t *testing.T, r *examples.Rig) map[string]string {
	t.Helper()
	var stats string
	r.Admin.Until("/stats", func(code int, text string) bool { stats = text; return code == 200 })
	r.Proxy.Signal(os.Interrupt)
	r.Proxy.Wait()
	outputs := map[string]string{"standard output": r.Proxy.Stdout(), "the log": r.Proxy.Log(), "the counters": stats}
	err := filepath.WalkDir(r.Files, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		outputs[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for where, text := range outputs {
		size += len(text)
		for _, p := range []string{"jane.doe", "4111111111111111", "eyJhbGciOiJIUzI1NiJ9", "s3cr3t"} {
			if i := strings.Index(text, p); i >= 0 {
				t.Errorf("%s holds %q: %q", where, p, text[max(i-100, 0):min(i+50, len(text))])
			}
		}
	}
	if len(outputs) < 4 || size < 100_000 {
		t.Errorf("only %d bytes in %d outputs", size, len(outputs))
	}
	return outputs
}
