// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/proxy/admin"
)

// follower writes what is sent to it until its context ends.
type follower struct {
	events chan string
	ended  chan error
}

func newFollower() *follower {
	return &follower{make(chan string), make(chan error, 100)}
}

func (f *follower) follow(ctx context.Context, w io.Writer) (err error) {
	defer func() { f.ended <- err }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-f.events:
			if _, err := io.WriteString(w, e); err != nil {
				return err
			}
		}
	}
}

func open(t *testing.T, c *client, path string, header http.Header) (*http.Response, *bufio.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		path, accept, contentType, want string
	}{
		"ndjson":           {"/events", "", "application/x-ndjson", "{\"a\":1}\n"},
		"ndjson by name":   {"/events?format=ndjson", "text/event-stream", "application/x-ndjson", "{\"a\":1}\n"},
		"sse":              {"/events?format=sse&since=1m", "", "text/event-stream", "data: {\"a\":1}\n\n"},
		"sse by its media": {"/events", "text/event-stream", "text/event-stream", "data: {\"a\":1}\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fol := newFollower()
			f := &fake{follow: fol.follow}
			s, c := start(t, admin.Config{}, f.views(), registry())
			res, r := open(t, c, tc.path, http.Header{"Accept": {tc.accept}})
			if ct := res.Header.Get("Content-Type"); ct != tc.contentType || !res.Close {
				t.Errorf("content type %q, close %v", ct, res.Close)
			}
			for _, e := range []string{`{"a":1}`, "{\"a\":1}\n", "{\n\"a\":\n1}"} { // each arrives before the next is sent
				fol.events <- e
				got := make([]byte, len(tc.want))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != tc.want {
					t.Fatalf("%q, %v; want %q", got, err, tc.want)
				}
			}
			// An empty line asks whether the reader is there. To a reader of server-sent events it is a comment.
			alive := "\n"
			if tc.contentType == "text/event-stream" {
				alive = ":\n\n"
			}
			fol.events <- "\n"
			got := make([]byte, len(alive))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != alive {
				t.Errorf("%q, %v; want %q", got, err, alive)
			}
			s.Close() // ends the stream
			if err := <-fol.ended; err != context.Canceled {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}

// TestEventsEndWithTheClient: a client that leaves ends its stream although no event is written.
func TestEventsEndWithTheClient(t *testing.T) {
	t.Parallel()
	fol := newFollower()
	f := &fake{follow: fol.follow}
	_, c := start(t, admin.Config{}, f.views(), registry())
	res, _ := open(t, c, "/events", nil)
	res.Body.Close()
	if err := <-fol.ended; err != context.Canceled {
		t.Errorf("the stream ended with %v", err)
	}
	// Bytes that nobody asked for do not end it.
	conn := c.dial(t)
	ask(t, conn, "GET /events")
	io.WriteString(conn, strings.Repeat("x", 1000))
	fol.events <- "{}"
	conn.Close()
	<-fol.ended
}

// TestStreamsAreBounded: the 17th stream is refused, and other answers are not.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	fol := newFollower()
	f := &fake{follow: fol.follow}
	_, c := start(t, admin.Config{}, f.views(), registry())
	for range 16 {
		if res, _ := open(t, c, "/events", nil); res.StatusCode != 200 {
			t.Fatalf("a stream: %s", res.Status)
		}
	}
	if res, _ := c.do(t, "GET", "/events"); res.StatusCode != 503 {
		t.Errorf("one more: %s", res.Status)
	}
	if res, _ := c.do(t, "GET", "/stats"); res.StatusCode != 200 {
		t.Errorf("/stats besides: %s", res.Status)
	}
}
