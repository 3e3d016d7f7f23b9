// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// tape gives what a client says, and forgets what it is told.
type tape struct{ io.Reader }

func (tape) Write(p []byte) (int, error) { return len(p), nil }

// recorder keeps what a client says first.
type recorder struct {
	net.Conn
	out *bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) { return r.out.Write(p) }
func (*recorder) Read([]byte) (int, error)      { return 0, io.EOF }
func (*recorder) Close() error                  { return nil }

// FuzzHandshake: nobody gets through the handshake who has not seen our side of it. Handshakes are random, so minimizing
// inputs leads nowhere: -fuzzminimizetime 10x.
func FuzzHandshake(f *testing.F) {
	hello := &bytes.Buffer{}
	tls.Client(&recorder{out: hello}, &tls.Config{ServerName: "server.test", NextProtos: []string{"h2"}}).Handshake()
	f.Add(hello.Bytes())
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Add([]byte{21, 3, 3, 0, 2, 1, 0})
	r := newRig(f)
	s := r.server(func(m *mesh.TLSContext) { m.Validation, m.RequireClientCertificate = r.roots(), true })
	config, err := s.tls.config()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		x := &Session{}
		x.tls = tls.Server(&x.wire, config)
		if i, err := x.shake(tape{bytes.NewReader(said)}); err == nil {
			t.Fatalf("%d bytes are a handshake: %+v", len(said), i)
		} else if e := failed(s.stats, 0, err); e.Reason == "" {
			t.Fatal("no reason")
		}
	})
}
