// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1/rfctest"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestRFC runs the cases of testdata/rfc.txt that a codec can answer for: a request goes through the server half, on
// through the client half to an upstream, and the upstream's answer the same way back.
func TestRFC(t *testing.T) {
	t.Parallel()
	for _, c := range rfctest.Read(t, "testdata/rfc.txt") {
		if c.Proxy || len(c.Steps) == 0 {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			c.Check(t, exchange(t, c.In, c.Origin))
		})
	}
}

// TestRFCIsWhole: every requirement has a row, and each row that leaves the proof to a test names one that there is.
func TestRFCIsWhole(t *testing.T) {
	t.Parallel()
	rfctest.CheckIndex(t, rfctest.Read(t, "testdata/rfc.txt"), "../../..")
}

// exchange serves all requests of a client's bytes from an origin that answers each with the same bytes.
func exchange(t *testing.T, in, origin string) rfctest.Result {
	t.Helper()
	var got rfctest.Result
	s, down := server(in)
	var st ServerStream
	var q codec.Request
	for {
		if err := next(t, s, down, &st, &q); err != nil {
			var refused *codec.ProtocolError
			if errors.As(err, &refused) {
				got.Refused = fmt.Sprint(refused.Status, " ", refused.Code)
				st.Refuse(s, &q)
				_ = st.Head(nil, reply(refused.Status, 0), bytebuf.Piece{}, true)
				got.Kept = st.Finish()
			}
			break
		}
		up := &wire{in: []string{origin}}
		lim := Defaults()
		cl := NewClient(up, &bufs, &lim, func(_ *Client, reuse bool) { got.Reused = reuse })
		cl.Begin()
		err := relay(&st, &q, cl, &got)
		got.Up += up.out.String()
		if err != nil {
			cl.Abort()
			st.Abort(false)
			break
		}
		cl.Release()
		if got.Kept = st.Finish(); !got.Kept {
			break
		}
	}
	got.Out = down.out.String()
	return got
}

// relay forwards one request and its answer.
func relay(st *ServerStream, q *codec.Request, cl *Client, got *rfctest.Result) error {
	if err := st.Continue(nil); err != nil {
		return err
	}
	if err := cl.Head(nil, q); err != nil {
		return err
	}
	if q.Length != 0 {
		if err := copyBody(cl, st.Body()); err != nil {
			got.Broken = text(err)
			return err
		}
	}
	var r codec.Response
	err := cl.Answer(nil, &r)
	for ; err == nil && r.Status < 200 && !r.Switched; err = cl.Answer(nil, &r) {
		_ = st.Inform(nil, r.Status, &r.Header)
	}
	if err != nil {
		got.Bad = text(err)
		_ = st.Head(nil, reply(502, 0), bytebuf.Piece{}, true)
		return err
	}
	end := r.Length == 0
	if err := st.Head(nil, &r, bytebuf.Piece{}, end); err != nil || end || r.Switched || st.ans.bodiless {
		return err
	}
	err = copyBody(st, cl.Body())
	if err != nil {
		got.Bad = text(err)
	}
	return err
}

// sink is the half of a stream that a body is copied to.
type sink interface {
	Data(*socket.Worker, bytebuf.Piece, bool) error
	SendTrailers(*socket.Worker, *header.List) error
}

// copyBody copies a body with its trailers.
func copyBody(to sink, b codec.Body) error {
	for {
		p, end, err := b.Next(nil)
		if err != nil {
			return err
		}
		trailers := end && b.Trailers() != nil
		if err := to.Data(nil, p, end && !trailers); err != nil {
			return err
		}
		if trailers {
			return to.SendTrailers(nil, b.Trailers())
		}
		if end {
			return nil
		}
	}
}

func text(err error) string { return strings.TrimPrefix(err.Error(), "protocol error: ") }
