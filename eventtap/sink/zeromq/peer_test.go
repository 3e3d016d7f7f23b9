// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/zmtp"
)

func newSink(c Config) *Sink {
	return New(c, eventtap.SinkDeps{Log: zap.NewNop(), Random: func() float64 { return 0.5 }})
}

// config is that of a sink with the limits of a test.
func config(p Pattern) Config {
	return Config{Pattern: p, Prefix: defaultPrefix, PeerBytes: defaultPeerBytes, MaxPeers: 4, Heartbeat: time.Second, AckTimeout: 20 * time.Second}
}

// remote is the other end of a connection: a SUB, PULL or ROUTER of the test's.
type remote struct {
	net.Conn
	rw io.ReadWriter // of frames
	t  *testing.T
}

func (r *remote) Read(b []byte) (int, error)  { return r.rw.Read(b) }
func (r *remote) Write(b []byte) (int, error) { return r.rw.Write(b) }

// meet opens a connection as a peer does.
func meet(t *testing.T, c net.Conn, typ string, login zmtp.Config) (*remote, error) {
	login.SocketType, login.Peers, login.MaxFrame = typ, []string{"PUB", "XPUB", "PUSH", "DEALER"}, 2*event.MaxSize
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return nil, err
	}
	rw, _, err := zmtp.Handshake(c, login)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &remote{c, rw, t}, nil
}

// dialPeer connects to a bound sink.
func dialPeer(t *testing.T, s *Sink, typ string) *remote {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	r, err := meet(t, c, typ, zmtp.Config{User: s.cfg.User, Password: "right"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (r *remote) command(name string, data string) {
	if _, err := r.Write(zmtp.AppendCommand(nil, name, []byte(data))); err != nil {
		r.t.Error(err)
	}
}

// receive returns the parts of the next message. It answers a PING.
func (r *remote) receive() (parts [][]byte, err error) {
	for {
		f, err := zmtp.ReadFrame(r, nil, 2*event.MaxSize)
		if err != nil {
			return nil, err
		}
		if f.Command {
			if name, data, err := zmtp.ParseCommand(f.Body); err == nil && name == zmtp.Ping {
				_, err = r.Write(zmtp.AppendCommand(nil, zmtp.Pong, data[2:]))
				if err != nil {
					return nil, err
				}
			}
			continue
		}
		parts = append(parts, f.Body)
		if !f.More {
			return parts, nil
		}
	}
}

func (r *remote) acknowledge(session []byte, n uint64) error {
	b := zmtp.AppendFrame(nil, session, true)
	_, err := r.Write(zmtp.AppendFrame(b, binary.BigEndian.AppendUint64(nil, n), false))
	return err
}

// router is a bound ROUTER that stores and acknowledges what it gets, every few messages. It can be killed and come back.
type router struct {
	addr  string
	login zmtp.Config
	every uint64

	mu     sync.Mutex
	stored [][]byte
	l      net.Listener
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
}

func startRouter(t *testing.T, login zmtp.Config, every uint64) *router {
	t.Helper()
	login.Server = true
	r := &router{addr: "127.0.0.1:0", login: login, every: every, conns: map[net.Conn]bool{}}
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *router) start(t *testing.T) {
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.l, r.addr = l, l.Addr().String()
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			r.wg.Go(func() { r.serve(t, c) })
		}
	})
}

func (r *router) serve(t *testing.T, c net.Conn) {
	defer c.Close()
	p, err := meet(t, c, "ROUTER", r.login)
	if err != nil {
		return
	}
	var last uint64
	for {
		m, err := p.receive()
		if err != nil {
			return
		}
		n := binary.BigEndian.Uint64(m[1])
		if len(m) != 5 || len(m[0]) != 8 || n != last+1 || !bytes.HasPrefix(m[2], []byte(defaultPrefix+".")) {
			t.Errorf("message %d after %d: %q", n, last, m)
		}
		last = n
		r.mu.Lock()
		r.stored = append(r.stored, m[4])
		r.mu.Unlock()
		if n%r.every == 0 {
			if p.acknowledge(m[0], n) != nil {
				return
			}
		}
	}
}

func (r *router) stop(*testing.T) {
	r.l.Close()
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	clear(r.conns)
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *router) events(*testing.T) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stored
}

// collector is a SUB or PULL that stores what it gets until the connection ends.
type collector struct {
	done   chan struct{}
	stored [][]byte
	topics []string
}

func collect(r *remote) *collector {
	c := &collector{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for {
			m, err := r.receive()
			if err == io.EOF {
				return
			}
			if err != nil || len(m) != 3 {
				r.t.Errorf("%q, %v", m, err)
				return
			}
			c.topics, c.stored = append(c.topics, string(m[0])), append(c.stored, m[2])
		}
	}()
	return c
}
