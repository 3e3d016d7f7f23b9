// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/header"
)

// TestSendLocalToGRPC: an answer of our own to a client of gRPC is a head alone. The values are Envoy's.
func TestSendLocalToGRPC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, method, body string
		status             int
		failure            mesh.FailureKind
		add                string // a header, "name: value"
		want               string
	}{
		{"a failure", "POST", "no healthy upstream", 503, mesh.NoHealthyHost, "", "content-type: application/grpc|grpc-status: 14|grpc-message: no healthy upstream"},
		{"a body with everything in it", "POST", "tea % pot~ü\n", 418, 0, "", "content-type: application/grpc|grpc-status: 2|grpc-message: tea %25 pot%7E%C3%BC%0A"},
		{"without a body", "POST", "", 404, mesh.NoRoute, "", "content-type: application/grpc|grpc-status: 12"},
		{"HEAD", "HEAD", "body", 401, 0, "", "content-type: application/grpc|grpc-status: 16"},
		{"a redirect keeps its place", "POST", "", 301, 0, "location: http://h/x", "location: http://h/x|content-type: application/grpc|grpc-status: 2"},
		{"a route's own status", "POST", "body", 200, 0, "grpc-status: 0", "grpc-status: 0|content-type: application/grpc|grpc-message: body"},
		{"the time is over", "POST", "", 408, mesh.MaxDuration, "", "content-type: application/grpc|grpc-status: 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			on(t, func(x *Exchange, _ *client) {
				x.IsGRPC, x.Request.Method = true, []byte(c.method)
				x.Outcome.Failure, x.Outcome.Side = c.failure, mesh.SideDownstream
				x.Answer(c.status, "why", []byte(c.body))
				if name, value, ok := strings.Cut(c.add, ": "); ok {
					x.Response.Header.AddString(name, value)
				}
				if err := x.SendLocal([]byte(c.body)); err != nil {
					t.Error(err)
				}
				got := strings.ReplaceAll(string(x.Response.Header.AppendHTTP1(nil)), "\r\n", "|")
				if want := c.want + "|x-before: 1|"; got != want {
					t.Errorf("the answer is %q, want %q", got, want)
				}
				if o := &x.Outcome; o.Status != 200 || o.ClusterStatus != c.status || o.BytesSent != 0 || x.Response.Length != 0 {
					t.Errorf("status %d for %d, %d bytes of %d", o.Status, o.ClusterStatus, o.BytesSent, x.Response.Length)
				}
			})
		})
	}
}

// TestSettleGRPC: the trailers come before the head, and both before what the HTTP status stands for.
func TestSettleGRPC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		grpc          bool
		head, trailer string
		status        int
		want          int64
	}{
		{"trailers", true, "", "14", 200, grpcwire.Unavailable},
		{"trailers before the head", true, "0", "5", 200, 5},
		{"a head alone", true, "7", "", 200, 7},
		{"neither", true, "", "", 503, grpcwire.Unavailable},
		{"a success without a status", true, "", "", 200, grpcwire.Unknown},
		{"no number", true, "", "abc", 200, grpcwire.Invalid},
		{"nothing was answered", true, "", "", 0, grpcwire.Invalid},
		{"no gRPC", false, "14", "14", 200, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			on(t, func(x *Exchange, _ *client) {
				x.Outcome.GRPC, x.Outcome.Status, x.Response.Status = c.grpc, c.status, c.status
				if c.head != "" {
					x.Response.Header.AddString("grpc-status", c.head)
				}
				if c.trailer != "" {
					x.Trailers = &header.List{}
					x.Trailers.AddString("grpc-status", c.trailer)
				}
				x.SettleGRPC()
				if got := x.Outcome.GRPCStatus; got != c.want || x.Outcome.GRPC != c.grpc {
					t.Errorf("the status is %d, want %d", got, c.want)
				}
			})
		})
	}
}
