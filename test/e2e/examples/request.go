// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// Request is a request to an example and what must come of it.
type Request struct {
	// Name says what it shows.
	Name string
	// Listener is the listener's name, "" for the only one.
	Listener string
	// Method is GET where it is "", Host localhost, Path /.
	Method, Host, Path string
	// Header are lines such as "x-user: me".
	Header []string
	Body   string
	// Secure sends the request over TLS, as to the server Host.
	Secure bool
	Want   Want
}

// Want is what an answer must be.
type Want struct {
	Status int
	// Line is the first line of the body: of an origin's answer what it was asked, else the body itself.
	Line string
	// Header are lines that the answer's headers must have; "x-user:" alone means that there must be none.
	Header []string
	// Got are lines that the headers of the request must have had that the origin got, in the same way.
	Got []string
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do makes a request on a connection of its own, so that one answer cannot spoil the next.
func (r *Rig) Do(q Request) Answer {
	r.T.Helper()
	a, err := r.Try(q)
	if err != nil {
		r.T.Fatalf("%s: %v", q.Name, err)
	}
	return a
}

// Try is Do for requests that may fail.
func (r *Rig) Try(q Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(r.T.Context(), sidecar.Hang)
	defer cancel()
	req, err := r.request(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	// Go's transport closes its connection as soon as it is idle, without saying so beforehand.
	t := &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: r.Roots, ServerName: q.Host}}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(body)}, err
}

func (r *Rig) request(ctx context.Context, q Request) (*http.Request, error) {
	method, host, path := or(q.Method, "GET"), or(q.Host, "localhost"), or(q.Path, "/")
	var body io.Reader
	if q.Body != "" {
		body = strings.NewReader(q.Body)
	}
	scheme := "http://"
	if q.Secure {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+r.Addr(q.Listener)+path, body)
	if err != nil {
		return nil, err
	}
	req.Host = host
	req.Header.Set("User-Agent", "example")
	for _, line := range q.Header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return req, nil
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Check reports where an answer is not what the request wants.
func (q Request) Check(t testing.TB, a Answer) {
	t.Helper()
	for _, wrong := range q.Want.wrong(a) {
		t.Errorf("%s: %s\nanswer: %d %v\n%s", q.Name, wrong, a.Status, a.Header, a.Body)
	}
}

func (w Want) wrong(a Answer) (wrong []string) {
	if a.Status != w.Status {
		wrong = append(wrong, fmt.Sprintf("status %d, want %d", a.Status, w.Status))
	}
	line, rest, _ := strings.Cut(a.Body, "\n")
	if w.Line != "" && line != w.Line {
		wrong = append(wrong, fmt.Sprintf("body %q, want %q", line, w.Line))
	}
	for _, h := range w.Header {
		name, value, some := strings.Cut(h, ": ")
		got := strings.Join(a.Header.Values(strings.TrimSuffix(name, ":")), ",")
		if got != value || some == (got == "") {
			wrong = append(wrong, fmt.Sprintf("header %q, want %q", got, h))
		}
	}
	lines := "\n" + rest + "\n"
	for _, h := range w.Got {
		if _, some := strings.CutSuffix(h, ":"); some && strings.Contains(lines, "\n"+h) ||
			!some && !strings.Contains(lines, "\n"+h+"\n") {
			wrong = append(wrong, fmt.Sprintf("the origin's request does not agree with %q", h))
		}
	}
	return wrong
}
