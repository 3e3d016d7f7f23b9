// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestH2Spec runs the tool h2spec, named by the environment variable H2SPEC, against a server that answers everything.
func TestH2Spec(t *testing.T) {
	tool := os.Getenv("H2SPEC")
	if tool == "" {
		t.Skip("H2SPEC does not name the tool")
	}
	x := newWorld(t)
	cfg := Defaults()
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, _ *codec.Request) {
		if r := st.Refused(); r != nil {
			_ = answer(w, st, r.Status, r.Code)
			return
		}
		if _, err := readBody(w, st.Body()); err == nil {
			_ = answer(w, st, 200, strings.Repeat("x", 100))
		}
	})
	host, port, _ := net.SplitHostPort(addr)
	out, err := exec.Command(tool, "-h", host, "-p", port, "-o", "1", "--strict").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
