// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
)

// Feed is the /events of one proxy.
type Feed struct {
	// Get asks a path of the proxy's administration server.
	Get func(ctx context.Context, path string) (io.ReadCloser, error)
	// Query is what to ask for, but for from and follow.
	Query  url.Values
	Follow bool
	// From is the sequence to begin with, 0 for what comes next. Read moves it on.
	From uint64
	// Up, where it is not nil, is called when the proxy answers.
	Up func() error
	// Unreadable, where it is not nil, is called for a line that is no event.
	Unreadable func(line []byte) error
}

// Read reads the stream to its end. Where the proxy cut it off because it was read too slowly, it goes on at once with
// what comes behind the last event, and what is gone by then is told in one lost event.
func (f *Feed) Read(ctx context.Context, each func(consume.Event) error) error {
	if f.Query == nil {
		f.Query = url.Values{}
	}
	for {
		cut, err := f.once(ctx, each)
		if !cut || err != nil {
			if f.Follow { // after an outage: what comes next
				f.From = 0
			}
			return err
		}
	}
}

// once reads the stream to its end, and tells whether it was cut off.
func (f *Feed) once(ctx context.Context, each func(consume.Event) error) (cut bool, err error) {
	if f.From > 0 {
		f.Query.Set("from", strconv.FormatUint(f.From, 10))
	} else {
		f.Query.Del("from")
	}
	if !f.Follow {
		f.Query.Set("follow", "false")
	}
	query := strings.ReplaceAll(f.Query.Encode(), "+", "%20") // to the administration server, as to Envoy's, a plus is a plus
	body, err := f.Get(ctx, "/events?"+query)
	if err != nil {
		return false, err
	}
	defer body.Close()
	if f.Up != nil {
		if err := f.Up(); err != nil {
			return false, err
		}
	}
	var held *consume.Event // a lost event that may be the stream's last
	lines := bufio.NewReaderSize(body, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return f.end(held, each, err)
		}
		if held != nil {
			if err := each(*held); err != nil {
				return false, err
			}
			held = nil
		}
		if len(line) <= 1 {
			continue // a sign of life
		}
		e, err := consume.DecodeLine(append([]byte(nil), line[:len(line)-1]...))
		switch {
		case err != nil && f.Unreadable != nil:
			err = f.Unreadable(e.Raw)
		case err != nil:
			err = nil
		case tooSlow(e.Event) && !f.Follow && f.From == 1:
			// It is what the proxy had forgotten before it was asked; nobody missed it.
		case tooSlow(e.Event):
			held = &e
		default:
			f.From = max(f.From, e.Sequence+1)
			err = each(e)
		}
		if err != nil {
			return false, err
		}
	}
}

// end looks at the end of a stream. One that was cut off can be read on where there is an event to go on behind.
func (f *Feed) end(held *consume.Event, each func(consume.Event) error, err error) (cut bool, _ error) {
	if held != nil && f.Follow && f.From > 1 {
		return true, nil
	}
	if held != nil {
		if err := each(*held); err != nil {
			return false, err
		}
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return false, err
}

// tooSlow reports whether the proxy's hub says that its reader missed events.
func tooSlow(e *event.Event) bool {
	return e.Kind == event.Lost && string(e.Texts[event.Reason]) == "too_slow"
}

// proxy is a Feed as a Source.
type proxy struct {
	client *http.Client
	feed   Feed
}

func newProxy(address string, o Options) (*proxy, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	base, transport := strings.TrimSuffix(address, "/"), &http.Transport{DisableCompression: true}
	if u.Scheme == "unix" {
		base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
		}
	}
	p := &proxy{client: &http.Client{Transport: transport}}
	p.feed = Feed{Follow: o.Follow, Get: func(ctx context.Context, path string) (io.ReadCloser, error) { return p.get(ctx, base+path) }}
	if o.All || !o.Follow {
		p.feed.From = 1
	}
	return p, nil
}

func (p *proxy) get(ctx context.Context, at string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("source: the proxy answered %s", res.Status)
	}
	return res.Body, nil
}

// Read implements consume.Source.
func (p *proxy) Read(ctx context.Context, each func(*consume.Message) error) error {
	p.feed.Unreadable = func(line []byte) error { return each(&consume.Message{Type: event.TypeJSON, Data: line}) }
	return p.feed.Read(ctx, func(e consume.Event) error {
		return each(&consume.Message{Seq: e.Sequence, Type: event.TypeJSON, Data: e.Raw})
	})
}

// Close implements consume.Source.
func (p *proxy) Close() error {
	p.client.CloseIdleConnections()
	return nil
}
