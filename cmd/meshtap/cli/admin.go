// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// askTime bounds a question to a proxy, a stream of events but for its first byte.
	askTime = 5 * time.Second
	// maxAnswer bounds an answer, in bytes; /stats of 5,000 clusters has about 30 MiB.
	maxAnswer = 256 << 20
	// asksAtOnce is how many proxies are asked at a time.
	asksAtOnce = 16
)

// Admin asks one proxy's administration server.
type Admin struct {
	Proxy
	client *http.Client
	base   string
}

// address takes an administration address apart: a network and an address to dial, and the URL of the server.
func (p Proxy) address() (network, addr, base string, err error) {
	a := p.Admin
	if path, ok := strings.CutPrefix(a, "unix://"); ok {
		a = path
	}
	if u, e := url.Parse(a); e == nil && u.Scheme == "http" && u.Host != "" && u.User == nil && (u.Path == "" || u.Path == "/") && u.RawQuery == "" {
		a = u.Host
		if u.Port() == "" {
			a = net.JoinHostPort(u.Hostname(), "80")
		}
	}
	switch {
	case a == "" || strings.Contains(a, "://"):
		return "", "", "", Usage("give the path of a socket, as /run/meshtap/admin.sock, or an address, as 127.0.0.1:9901", "%q is no administration address", p.Admin)
	case strings.Contains(a, "/"):
		return "unix", a, "http://localhost", nil
	}
	if _, _, e := net.SplitHostPort(a); e != nil {
		return "", "", "", Usage("give the path of a socket, as ./admin.sock, or an address, as 127.0.0.1:9901", "%q is no administration address", p.Admin)
	}
	return "tcp", a, "http://" + a, nil
}

func (p Proxy) check() error {
	_, _, _, err := p.address()
	return err
}

// Label is what to call the proxy: its name, or its address.
func (p Proxy) Label() string {
	if p.Name != "" {
		return p.Name
	}
	return p.Admin
}

// NewAdmin returns a client of a proxy whose address was checked. Close it.
func NewAdmin(p Proxy) *Admin {
	network, addr, base, _ := p.address()
	var d net.Dialer
	return &Admin{Proxy: p, base: base, client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, network, addr) },
			ResponseHeaderTimeout: askTime, DisableCompression: true,
		},
	}}
}

// Close closes the connections.
func (a *Admin) Close() { a.client.CloseIdleConnections() }

// Get asks for a path and returns the body of the answer, which the caller closes.
func (a *Admin) Get(ctx context.Context, path string) (io.ReadCloser, error) {
	return a.do(ctx, http.MethodGet, path, nil)
}

func (a *Admin) do(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.client.Do(req)
	if err != nil {
		return nil, a.unreachable(ctx, err)
	}
	if res.StatusCode/100 == 2 {
		return res.Body, nil
	}
	defer res.Body.Close()
	why, _ := io.ReadAll(io.LimitReader(res.Body, 300))
	return nil, a.refused(res.StatusCode, strings.TrimSpace(string(why)), path)
}

// refused says what an answer other than 200 means.
func (a *Admin) refused(status int, why, path string) error {
	name, _, _ := strings.Cut(path, "?")
	switch status {
	case http.StatusNotFound:
		return &Error{Exit: ExitFailure, Msg: fmt.Sprintf("%s has no %s", a.Label(), name),
			Hint: "it is not a Meshtap proxy, or one without this part; see its /help"}
	case http.StatusBadRequest:
		return Errorf(ExitUsage, "%s: %s", a.Label(), why)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return &Error{Exit: ExitUnreachable, Msg: fmt.Sprintf("%s is busy: %s", a.Label(), why), Hint: "try again"}
	}
	return Errorf(ExitFailure, "%s answered %s with %d: %s", a.Label(), name, status, why)
}

// unreachable says why there is no answer. What ends with the caller's context stays what it is.
func (a *Admin) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	e := &Error{Exit: ExitUnreachable, Msg: fmt.Sprintf("%s cannot be reached at %s: %v", a.Label(), a.Admin, err)}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "the socket belongs to another user; run this as that user"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "is the proxy running, and is this its administration address?"
	}
	if a.Name == "" {
		e.Msg = fmt.Sprintf("%s cannot be reached: %v", a.Admin, err)
	}
	return e
}

// JSON asks for a path and reads the answer into v.
func (a *Admin) JSON(ctx context.Context, path string, v any) error {
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	body, err := a.Get(ask, path)
	if err != nil {
		return a.late(ctx, err)
	}
	defer body.Close()
	limited := &io.LimitedReader{R: body, N: maxAnswer}
	if err := json.NewDecoder(limited).Decode(v); err != nil {
		if ask.Err() != nil {
			return a.late(ctx, ask.Err())
		}
		name, _, _ := strings.Cut(path, "?")
		return Errorf(ExitFailure, "%s answered %s with what is not the JSON expected: %v", a.Label(), name, err)
	}
	return nil
}

// Send sends v as JSON with a method.
func (a *Admin) Send(ctx context.Context, method, path string, v any) error {
	b := []byte(nil)
	if v != nil {
		var err error
		if b, err = json.Marshal(v); err != nil {
			return err
		}
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	body, err := a.do(ask, method, path, b)
	if err != nil {
		return a.late(ctx, err)
	}
	return body.Close()
}

// late tells the end of the time for a question from that of the verb's.
func (a *Admin) late(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return Errorf(ExitUnreachable, "%s did not answer in %v", a.Label(), askTime)
	}
	return err
}

// Answer is what one proxy said, or why it did not.
type Answer[T any] struct {
	Proxy Proxy
	Value T
	Err   error
}

// Ask asks all proxies, several at a time, and returns the answers in the order of the proxies.
func Ask[T any](ctx context.Context, proxies []Proxy, ask func(context.Context, *Admin) (T, error)) []Answer[T] {
	out := make([]Answer[T], len(proxies))
	places := make(chan struct{}, asksAtOnce)
	var wg sync.WaitGroup
	for i, p := range proxies {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			a := NewAdmin(p)
			defer a.Close()
			v, err := ask(ctx, a)
			out[i] = Answer[T]{a.Proxy, v, err}
		})
	}
	wg.Wait()
	return out
}

// Failed tells of the proxies that did not answer, on w, and returns the Error to end with: nil where all answered, the
// only error where there is one proxy, partial where some answered.
func Failed[T any](w io.Writer, answers []Answer[T]) error {
	var errs []error
	for _, a := range answers {
		if a.Err != nil {
			errs = append(errs, a.Err)
		}
	}
	switch {
	case len(errs) == 0:
		return nil
	case len(answers) == 1:
		return errs[0]
	}
	for _, err := range errs {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		fmt.Fprintf(w, "meshtap: %s\n", Clean(err.Error()))
	}
	if len(errs) < len(answers) {
		return Quiet(ExitPartial)
	}
	return &Error{Exit: asError(errs[0]).Exit, Msg: fmt.Sprintf("none of %d proxies answered", len(answers))}
}
