// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// script is the other side of a connection, scripted with x/net's Framer, which takes what we should not send either.
type script struct {
	t   testing.TB
	c   net.Conn
	fr  *http2.Framer
	enc *hpack.Encoder
	hb  bytes.Buffer
	got []string // what came, without SETTINGS, PING and WINDOW_UPDATE
	err error    // the connection's end
	win map[uint32]int
	set map[http2.SettingID]uint32
}

func newPeer(t testing.TB, c net.Conn) *script {
	p := &script{t: t, c: c, fr: http2.NewFramer(c, c), win: map[uint32]int{}, set: map[http2.SettingID]uint32{}}
	p.fr.AllowIllegalWrites = true
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.enc = hpack.NewEncoder(&p.hb)
	c.SetDeadline(time.Now().Add(hang))
	t.Cleanup(func() { c.Close() })
	return p
}

// toServer connects to a server and says hello.
func (x *world) toServer(t testing.TB, addr string, settings ...http2.Setting) *script {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, c)
	io.WriteString(c, Preface)
	p.fr.WriteSettings(settings...)
	return p
}

// toClient listens, lets a client connect, and says hello.
func (x *world) toClient(t testing.TB, cfg *Config, settings ...http2.Setting) (*script, *testClient) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cl := x.dial(ln.Addr().String(), cfg)
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, c)
	hello := make([]byte, len(Preface))
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != Preface {
		t.Fatalf("%q, %v", hello, err)
	}
	p.fr.WriteSettings(settings...)
	return p, cl
}

// block encodes fields as "name", "value" pairs.
func (p *script) block(fields ...string) []byte {
	p.hb.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return p.hb.Bytes()
}

func (p *script) headers(id uint32, end bool, fields ...string) {
	p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndHeaders: true, EndStream: end})
}

// get sends a GET, or with further fields something like it.
func (p *script) get(id uint32, end bool, fields ...string) {
	p.headers(id, end, append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}, fields...)...)
}

func (p *script) post(id uint32, fields ...string) {
	p.headers(id, false, append([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}, fields...)...)
}

// next reads one frame and notes it. It reports false at the end of the connection.
func (p *script) next() (http2.Frame, bool) {
	f, err := p.fr.ReadFrame()
	if err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			p.t.Fatalf("nothing comes any more; so far: %q", p.got)
		}
		p.err = err
		return nil, false
	}
	end := ""
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			f.ForeachSetting(func(s http2.Setting) error { p.set[s.ID] = s.Val; return nil })
			p.fr.WriteSettingsAck()
		}
	case *http2.WindowUpdateFrame:
		p.win[f.StreamID] += int(f.Increment)
	case *http2.MetaHeadersFrame:
		if f.StreamEnded() {
			end = " end"
		}
		v := f.PseudoValue("status")
		if v == "" {
			v = f.PseudoValue("method")
		}
		p.got = append(p.got, strings.Join(strings.Fields(fmt.Sprintf("HEADERS %d %s%s", f.StreamID, v, end)), " "))
	case *http2.DataFrame:
		if f.StreamEnded() {
			end = " end"
		}
		p.got = append(p.got, fmt.Sprintf("DATA %d %d%s", f.StreamID, len(f.Data()), end))
	case *http2.RSTStreamFrame:
		p.got = append(p.got, fmt.Sprintf("RST %d %s", f.StreamID, f.ErrCode))
	case *http2.GoAwayFrame:
		p.got = append(p.got, fmt.Sprintf("GOAWAY %d %s", f.LastStreamID, f.ErrCode))
	}
	return f, true
}

// sync waits until everything that was sent has been handled, or until the connection ends.
func (p *script) sync() {
	p.t.Helper()
	p.fr.WritePing(false, [8]byte{1, 2, 3})
	for {
		f, ok := p.next()
		if !ok {
			return
		}
		if pf, is := f.(*http2.PingFrame); is && pf.IsAck() && pf.Data[0] == 1 {
			return
		}
	}
}

// until reads until something came.
func (p *script) until(what string) {
	p.t.Helper()
	for !slices.Contains(p.got, what) {
		if _, ok := p.next(); !ok {
			p.t.Fatalf("the connection ended without %q: %q", what, p.got)
		}
	}
}

// ends reads until the connection ends.
func (p *script) ends() {
	for {
		if _, ok := p.next(); !ok {
			return
		}
	}
}

// expect compares what came with what should have.
func (p *script) expect(want ...string) {
	p.t.Helper()
	if !slices.Equal(p.got, want) {
		p.t.Errorf("got %q, want %q (%v)", p.got, want, p.err)
	}
	p.got = nil
}

// hangUp ends this side in order.
func (p *script) hangUp() { p.c.(*net.TCPConn).CloseWrite() }

func setting(id uint16, v uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingID(id), Val: v}
}
