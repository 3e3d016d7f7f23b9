// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serverEnv makes the test binary a NATS server: its port and the folder of its store.
const serverEnv = "MESHTAP_TEST_NATS_SERVER"

// TestServerProcess is that server.
func TestServerProcess(t *testing.T) {
	port, dir, ok := strings.Cut(os.Getenv(serverEnv), " ")
	if !ok {
		t.Skip("it is only for tests that run it as a process of its own")
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: n, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	fmt.Println("at", srv.ClientURL())
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends
}

// process is a NATS server in a process of its own, which can be killed and come back on the same port with the same
// store.
type process struct {
	tb  testing.TB
	dir string
	cmd *exec.Cmd
	at  string
}

// startProcess starts a server, which is killed at the end of the test.
func startProcess(tb testing.TB, port int, dir string) *process {
	tb.Helper()
	p := &process{tb: tb, dir: dir}
	p.run(port)
	tb.Cleanup(p.stop)
	return p
}

func (p *process) run(port int) {
	p.tb.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerProcess$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", serverEnv, port, p.dir))
	if _, err := cmd.StdinPipe(); err != nil { // it ends when this process does
		p.tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	p.cmd = cmd
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var ok bool
		if p.at, ok = strings.CutPrefix(lines.Text(), "at "); ok {
			return
		}
	}
	p.tb.Fatal("the server's process does not start")
}

// stop ends the process with SIGKILL.
func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may have been killed before
	_ = p.cmd.Wait()
}

func (p *process) start(t *testing.T) {
	t.Helper()
	u, err := url.Parse(p.at)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	p.run(port)
}

func (p *process) url() string { return p.at }
