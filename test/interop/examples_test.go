// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
)

// Every example that uses none of Meshtap's own extensions is one that Envoy accepts as it is.
func TestEnvoyAcceptsTheExamples(t *testing.T) {
	t.Parallel()
	for _, e := range examples.All() {
		if e.Own != "" {
			continue
		}
		t.Run(e.File, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(envoy, "--mode", "validate", "-c", written(t, examples.NewRig(t).Read(e.File))).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// written puts a configuration into a file.
func written(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The requests of the examples get the same answers from both, headers and bodies included, and what the origins got is
// the same, too.
func TestSameAnswers(t *testing.T) {
	t.Parallel()
	for _, e := range examples.All() {
		if e.Own != "" || len(e.Requests) == 0 {
			continue
		}
		t.Run(e.File, func(t *testing.T) {
			t.Parallel()
			theirs, ours := start(t, e, envoy), start(t, e, "")
			for _, q := range e.Requests {
				a, b := theirs.Do(q), ours.Do(q)
				q.Check(t, a)
				q.Check(t, b)
				for _, d := range differences(a, b) {
					t.Errorf("%s: %s", q.Name, d)
				}
			}
		})
	}
}

// What no list of requests can say holds for Envoy as well.
func TestEnvoyDoesTheSame(t *testing.T) {
	t.Parallel()
	for _, e := range examples.All() {
		if e.Own != "" || e.Do == nil {
			continue
		}
		t.Run(e.File, func(t *testing.T) {
			t.Parallel()
			e.Do(t, start(t, e, envoy))
		})
	}
}

// start serves an example by the binary, Meshtap's where it is "".
func start(t *testing.T, e examples.Example, binary string) *examples.Rig {
	t.Helper()
	r := examples.NewRig(t)
	r.Start(r.Read(e.File), binary)
	return r
}

// volatile are headers whose values are of the moment; that they are there is compared. Which of its hosts a cluster begins
// with is chance, and the time that is left of a request's differs a little.
var volatile = []string{"Date", "X-Envoy-Upstream-Service-Time", "X-Request-Id", "X-Origin"}

// fixed makes the lines of an origin's answer comparable in the same way.
func fixed(body string) string {
	var b strings.Builder
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "x-request-id":
			value = ""
		case "x-forwarded-for": // for a client on loopback, Envoy writes an address of the host
			value = ""
		case "x-envoy-expected-rq-timeout-ms":
			n, _ := strconv.Atoi(value)
			value = fmt.Sprint((n+4999)/5000, " times 5 s")
		}
		b.WriteString(name + ": " + value + "\n")
	}
	return origins.ReplaceAllString(b.String(), "$1")
}

// origins are the names with which the answers of the origins begin.
var origins = regexp.MustCompile(`^[ab]( [A-Z]+ )`)

// differences compares answers line by line.
func differences(theirs, ours examples.Answer) (out []string) {
	add := func(what string, a, b any) {
		if fmt.Sprint(a) != fmt.Sprint(b) {
			out = append(out, fmt.Sprintf("%s: Envoy %q, Meshtap %q", what, a, b))
		}
	}
	add("status", theirs.Status, ours.Status)
	var names []string
	for name := range theirs.Header {
		names = append(names, name)
	}
	for name := range ours.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if slices.Contains(volatile, name) {
			add("the presence of "+name, present(theirs.Header, name), present(ours.Header, name))
			continue
		}
		add(name, theirs.Header.Values(name), ours.Header.Values(name))
	}
	if a, b := fixed(theirs.Body), fixed(ours.Body); a != b {
		add("lines of the body", missing(a, b), missing(b, a))
	}
	return out
}

func present(h http.Header, name string) bool { return len(h.Values(name)) > 0 }

// missing returns the lines of a that b does not have.
func missing(a, b string) (out []string) {
	for line := range strings.Lines(a) {
		if !strings.Contains("\n"+b, "\n"+line) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}
