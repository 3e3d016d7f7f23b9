// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

// talk sends a line, unless it is "", and wants a line back.
func talk(t testing.TB, c net.Conn, br *bufio.Reader, say, want string) {
	t.Helper()
	if say != "" {
		if _, err := io.WriteString(c, say+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := br.ReadString('\n')
	if got != want+"\n" {
		t.Fatalf("said %q, got %q, %v; want %q", say, got, err, want)
	}
}

// greeted talks with a server that speaks first, whose name it returns.
func greeted(t testing.TB, c net.Conn) string {
	t.Helper()
	br := newReader(c)
	line, err := br.ReadString('\n')
	name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "hello from ")
	if !ok {
		t.Fatalf("greeted with %q, %v", line, err)
	}
	for i := range 3 {
		talk(t, c, br, fmt.Sprint("line ", i), fmt.Sprint(name, " line ", i))
	}
	return name
}

func tcp(t *testing.T, r *Rig) {
	if name := greeted(t, r.Dial("tcp")); name != "database" {
		t.Errorf("came to %s", name)
	}
	seen := map[string]int{}
	for range 40 {
		seen[greeted(t, r.Dial("split"))]++
	}
	if seen["database"] == 0 || seen["replica"] == 0 {
		t.Errorf("the split gave %v", seen)
	}
	// An end on one side is passed on to the other.
	c := r.Dial("tcp").(*net.TCPConn)
	greeted(t, c)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

// serverNames: the certificates are those of the servers, whom nobody stands for.
func serverNames(t *testing.T, r *Rig) {
	for _, name := range []string{"one.example", "a.two.example"} {
		if got := greeted(t, r.DialTLS("", name)); got != name {
			t.Errorf("asked for %s and came to %s", name, got)
		}
	}
	for _, name := range []string{"two.example", "other.example"} {
		if err := r.DialTLS("", name).Handshake(); err == nil {
			t.Errorf("%s, which no chain is for, was let through", name)
		}
	}
}

func protocols(t *testing.T, r *Rig) {
	// A client that says nothing is taken for a TCP client when the time is over.
	if name := greeted(t, r.Dial("")); name != "database" {
		t.Errorf("came to %s", name)
	}
	// One that speaks something else is taken for one at once.
	c := r.Dial("")
	br := newReader(c)
	talk(t, c, br, "\x00\x01 this is not HTTP", "hello from database")
	talk(t, c, br, "", "database \x00\x01 this is not HTTP")
}
