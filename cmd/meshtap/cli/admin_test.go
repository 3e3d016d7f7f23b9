// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"127.0.0.1:9901":         "tcp 127.0.0.1:9901 http://127.0.0.1:9901",
		"[::1]:9901":             "tcp [::1]:9901 http://[::1]:9901",
		"localhost:9901":         "tcp localhost:9901 http://localhost:9901",
		"http://127.0.0.1:9901":  "tcp 127.0.0.1:9901 http://127.0.0.1:9901",
		"http://127.0.0.1:9901/": "tcp 127.0.0.1:9901 http://127.0.0.1:9901",
		"http://host":            "tcp host:80 http://host:80",
		"/run/admin.sock":        "unix /run/admin.sock http://localhost",
		"./admin.sock":           "unix ./admin.sock http://localhost",
		"unix:///run/admin.sock": "unix /run/admin.sock http://localhost",
		"":                       "",
		"host":                   "",
		"https://host:1":         "",
		"http://user@host:1":     "",
		"http://host:1/stats":    "",
		"http://host:1?x":        "",
		"unix://":                "",
	} {
		network, addr, base, err := Proxy{Admin: in}.address()
		got := strings.TrimSpace(network + " " + addr + " " + base)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestAdminAnswers(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/well":
			_, _ = io.WriteString(w, `{"a": 1}`)
		case "/broken":
			_, _ = io.WriteString(w, `<html>`)
		case "/busy":
			http.Error(w, "too many readers", http.StatusServiceUnavailable)
		case "/wrong":
			http.Error(w, "no such \x1b[31mkind", http.StatusBadRequest)
		case "/elsewhere":
			http.Redirect(w, r, "/well", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	a := NewAdmin(Proxy{Name: "web-1", Admin: s.Listener.Addr().String()})
	defer a.Close()
	for path, want := range map[string]string{
		"/well":         "",
		"/none?x=1":     "1 web-1 has no /none (it is not a Meshtap proxy, or one without this part; see its /help)",
		"/broken":       "1 web-1 answered /broken with what is not the JSON expected: invalid character '<' looking for beginning of value ()",
		"/busy":         "4 web-1 is busy: too many readers (try again)",
		"/wrong?kind=x": "2 web-1: no such \x1b[31mkind ()", // Report cleans it
		"/elsewhere":    "1 web-1 answered /elsewhere with 302: <a href=\"/well\">Found</a>. ()",
	} {
		var v map[string]int
		got := ""
		if err := a.JSON(t.Context(), path, &v); err != nil {
			e := asError(err)
			got = fmt.Sprintf("%d %s (%s)", e.Exit, e.Msg, e.Hint)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.JSON(ctx, "/well", new(any)); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestFailed: what is told of proxies that did not answer, and how it ends.
func TestFailed(t *testing.T) {
	t.Parallel()
	down := Errorf(ExitUnreachable, "web-1 is \x1b down")
	for _, c := range []struct {
		name  string
		errs  []error
		exit  int
		notes string
	}{
		{"all answered", []error{nil, nil}, 0, ""},
		{"the only one did not", []error{down}, ExitUnreachable, ""},
		{"one of two did not", []error{nil, down}, ExitPartial, "meshtap: web-1 is \\x1b down\n"},
		{"none of two did", []error{down, down}, ExitUnreachable, "meshtap: web-1 is \\x1b down\nmeshtap: web-1 is \\x1b down\n"},
		{"an interrupt is no outage", []error{nil, context.Canceled}, ExitInterrupted, ""},
		{"nor is the end of the time", []error{context.DeadlineExceeded, nil}, ExitTimeout, ""},
	} {
		var answers []Answer[int]
		for _, err := range c.errs {
			answers = append(answers, Answer[int]{Err: err})
		}
		var notes bytes.Buffer
		exit := 0
		if err := Failed(&notes, answers); err != nil {
			exit = asError(err).Exit
		}
		if exit != c.exit || notes.String() != c.notes {
			t.Errorf("%s: %d and %q, want %d and %q", c.name, exit, &notes, c.exit, c.notes)
		}
	}
}

// TestAsk: answers come in the order of the proxies, whatever their number.
func TestAsk(t *testing.T) {
	t.Parallel()
	var proxies []Proxy
	for i := range 5 * asksAtOnce {
		proxies = append(proxies, Proxy{Admin: fmt.Sprintf("127.0.0.1:%d", i+1)})
	}
	for i, a := range Ask(t.Context(), proxies, func(_ context.Context, a *Admin) (string, error) { return a.Proxy.Admin, nil }) {
		if a.Err != nil || a.Value != proxies[i].Admin {
			t.Errorf("%d: %s, %v", i, a.Value, a.Err)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		asJSON bool
		code   int
		want   string
	}{
		{"nothing", nil, false, 0, ""},
		{"with a hint", Usage("do that", "not %s", "this"), false, 2, "meshtap: not this\n  hint: do that\n"},
		{"everything was told", Quiet(ExitProblems), true, 5, ""},
		{"an interrupt needs no words", fmt.Errorf("read: %w", context.Canceled), false, 130, ""},
		{"the end of the time", context.DeadlineExceeded, false, 124, "meshtap: the time given with --timeout is over\n"},
		{"another", errors.New("a\nb\x1b"), false, 1, "meshtap: a\\x0ab\\x1b\n"},
		{"for a program", Usage("h\x1b", "m"), true, 2, `{"code":"usage","message":"m","hint":"h\u001b","docs":"docs/cli.md#exit-codes"}` + "\n"},
	} {
		var out bytes.Buffer
		if code := Report(&out, c.err, c.asJSON); code != c.code || out.String() != c.want {
			t.Errorf("%s: %d and %q, want %d and %q", c.name, code, &out, c.code, c.want)
		}
	}
	seen := map[string]bool{}
	for _, e := range ExitCodes() {
		if e.Meaning == "" || seen[e.Name] {
			t.Errorf("%d is called %q and means %q", e.Code, e.Name, e.Meaning)
		}
		seen[e.Name] = true
	}
}
