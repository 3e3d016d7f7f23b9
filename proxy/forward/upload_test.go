// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestUpload: bodies on their way, by how they come and what the upstream does meanwhile.
func TestUpload(t *testing.T) {
	t.Parallel()
	pieces := strings.Split(strings.Repeat(strings.Repeat("x", 10<<10)+"|", 30), "|")
	pieces = pieces[:30]
	for _, c := range []struct {
		name   string
		body   []string
		here   int
		step   string
		status int
		kind   mesh.FailureKind
		sent   int // bytes that reached the upstream; -1 for some
	}{
		{"large", pieces, 0, ok, 200, mesh.NoFailure, 300 << 10},
		{"large, with its beginning", pieces, 3, ok, 200, mesh.NoFailure, 300 << 10},
		{"answered before its end", pieces, 1, "early " + ok, 200, mesh.NoFailure, -1},
		{"closed by the upstream", pieces, 1, closing, 503, mesh.UpstreamClosed, -1},
		{"the client leaves", append(pieces[:3:3], brokenBody), 1, ok, 0, mesh.DownstreamClosed, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, c.step)
			cl := r.add("c", nil, s.addr)
			q := get(to("c"))
			q.method, q.length, q.body, q.here = "POST", codec.Unknown, append([]string(nil), c.body...), c.here
			p := r.do(q)
			if p.Status != c.status || p.Failure != c.kind {
				t.Errorf("%d %s", p.Status, p.Failure)
			}
			if _, bodies := s.got(); c.sent >= 0 && (len(bodies) != 1 || len(bodies[0]) != c.sent) {
				t.Errorf("the upstream got %d bodies", len(bodies))
			}
			if n := cl.Stats.Value(metrics.UpstreamRqActive); n != 0 {
				t.Errorf("%d active", n)
			}
		})
	}
}

// TestUploadPanics: a panic of the worker that sends a body is one of the request, not of the process.
func TestUploadPanics(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	s := play(t, hanging)
	r.add("c", nil, s.addr)
	caught := make(chan any, 1)
	r.engine.Go(job(func(w *socket.Worker) {
		defer func() { caught <- recover() }()
		q := get(to("c"))
		q.method, q.length, q.body = "POST", codec.Unknown, []string{"a", panics}
		r.serve(w, q)
	}))
	if v := <-caught; v == nil || !strings.Contains(v.(string), "a body's own") {
		t.Errorf("caught %v", v)
	}
	if n := r.clusters["c"].Stats.Value(metrics.UpstreamRqActive); n != 0 {
		t.Errorf("%d active", n)
	}
}

// TestInterimAndTrailers: 1xx answers and trailers are passed on, trailers where the client may have them.
func TestInterimAndTrailers(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
	for _, enabled := range []bool{false, true} {
		r := newRig(t, mesh.Router{})
		r.add("c", nil, play(t, answer).addr)
		q := get(to("c"))
		q.manager.EnableTrailers = enabled
		p := r.do(q)
		want := ""
		if enabled {
			want = "X-Sum: 1\r\n"
		}
		if len(p.interims) != 2 || p.interims[0] != 103 || p.interims[1] != 102 || p.body != "ok" || p.trailers != want || !p.whole {
			t.Errorf("%v %q %q %v", p.interims, p.body, p.trailers, p.whole)
		}
	}
}
