// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// GRPC is a server that speaks gRPC's framing and trailers over HTTP/1.1. For each message it gets it sends one with the
// target, the grpc-timeout and the message, such as "/p.S/M 400m ping". The header x-do tells it otherwise:
//
//	status=N    ends with this grpc-status, and with the grpc-message "status N"
//	head=N      the same, as an answer that is a head alone
//	fail=N      answers with a head alone and UNAVAILABLE as long as fewer than N requests with the same x-case have come
//	messages=N  sends N messages
//	html        answers with a page and 503
type GRPC struct {
	group  Group
	addr   netip.AddrPort
	server *http.Server
	wg     sync.WaitGroup
}

// StartGRPC runs a server on a free loopback port until the test ends.
func StartGRPC(tb testing.TB) *GRPC {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	o := &GRPC{addr: netip.MustParseAddrPort(ln.Addr().String())}
	o.server = &http.Server{Handler: o}
	o.wg.Go(func() { _ = o.server.Serve(ln) })
	tb.Cleanup(func() {
		o.server.Close()
		o.wg.Wait()
	})
	return o
}

// Addr returns the address.
func (o *GRPC) Addr() netip.AddrPort { return o.addr }

// ServeHTTP answers.
func (o *GRPC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	what, value, _ := strings.Cut(r.Header.Get(Do), "=")
	n, _ := strconv.Atoi(value)
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	switch {
	case what == "html":
		h.Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "<p>out of order")
		return
	case what == "head", what == "fail" && o.group.among(r.Header.Get("x-case"), n):
		if what == "fail" {
			n = 14
		}
		h.Set("Grpc-Status", strconv.Itoa(n))
		h.Set("Grpc-Message", fmt.Sprint("status ", n))
		return
	}
	got := Messages(body)
	if what == "messages" {
		got = make([]string, n)
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // so that the answer is in chunks, whatever follows
	for _, m := range got {
		w.Write(Frame(fmt.Sprintf("%s %s %s", r.RequestURI, r.Header.Get("grpc-timeout"), m)))
	}
	if what != "status" {
		n = 0
	}
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(n))
	if n != 0 {
		h.Set(http.TrailerPrefix+"Grpc-Message", fmt.Sprint("status ", n))
	}
}

// Frame returns a message in its frame.
func Frame(message string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// Messages takes the messages of a body out of their frames, as far as they are whole.
func Messages(body []byte) (out []string) {
	for len(body) >= 5 {
		n := int(binary.BigEndian.Uint32(body[1:]))
		if n > len(body)-5 {
			break
		}
		out = append(out, string(bytes.Clone(body[5:5+n])))
		body = body[5+n:]
	}
	return out
}
