// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestExchange: requests and answers, with bodies of all sizes both ways, between our own two ends.
func TestExchange(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		body, err := readBody(w, st.Body())
		if err != nil {
			t.Error(err)
			return
		}
		r := &codec.Response{Status: 200, Length: int64(len(body))}
		r.Header.Add("x-path", q.Path)
		if err := st.Head(w, r, bytebuf.Of(body), true); err != nil {
			t.Error(err)
		}
	})
	c := x.dial(addr, &cfg)
	for _, n := range []int{0, 1, 1000, 16 << 10, 16<<10 + 1, 65535, 65536, 300 << 10, 3 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			x.do(func(w *socket.Worker) {
				st, ok := c.Reserve()
				if !ok {
					t.Error("no place")
					return
				}
				var r codec.Response
				body := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
				if err := st.Call(w, request("POST", fmt.Sprint("/", n)), body, &r); err != nil {
					t.Error(err)
				}
				if r.Status != 200 || string(r.Header.Get("x-path")) != fmt.Sprint("/", n) {
					t.Errorf("%d, %q", r.Status, r.Header.Get("x-path"))
				}
				got, err := readBody(w, st.Body())
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes of %d, %v", len(got), n, err)
				}
				st.Release()
			})
		})
	}
}
