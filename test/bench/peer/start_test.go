// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const helper = "BENCH_TEST_HELPER"

// TestMain is the test, or where the environment asks for it, a program that listens or one that fails.
func TestMain(m *testing.M) {
	switch os.Getenv(helper) {
	case "":
		os.Exit(m.Run())
	case "fail":
		fmt.Fprintln(os.Stderr, "line 3: unknown keyword")
		os.Exit(2)
	default:
		l, err := shared(os.Args[len(os.Args)-1])
		if err != nil {
			panic(err)
		}
		for {
			if c, err := l.Accept(); err == nil {
				_ = c.Close()
			}
		}
	}
}

// shared listens where others may listen too.
func shared(addr string) (net.Listener, error) {
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	return cfg.Listen(context.Background(), "tcp", addr)
}

func helped(how string) (Peer, Program, error) {
	self, err := os.Executable()
	p := Peer{Name: "helper", args: func(p Place, _ string) []string { return []string{p.Listen.String()} }}
	return p, Program{Path: self, Env: []string{helper + "=" + how}}, err
}

func TestStart(t *testing.T) {
	t.Parallel()
	p, found, err := helped("listen")
	if err != nil {
		t.Fatal(err)
	}
	at := Place{Listen: free(t)[0], Dir: t.TempDir()}
	r, err := p.Start(t.Context(), found, at, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	var on unix.CPUSet
	if err := unix.SchedGetaffinity(r.PID, &on); err != nil || on.Count() != 1 || !on.IsSet(0) {
		t.Errorf("it may run on %d cores: %v", on.Count(), err)
	}
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil || mine.Count() < 2 && allCores(t) > 1 {
		t.Errorf("the caller was left on %d cores: %v", mine.Count(), err)
	}
	r.Stop()
	<-r.Ended()
	if _, err := net.Dial("tcp", at.Listen.String()); err == nil {
		t.Error("it listens after Stop")
	}
}

func allCores(t *testing.T) int {
	t.Helper()
	var s unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &s); err != nil {
		t.Fatal(err)
	}
	return s.Count()
}

func TestStartTellsWhyAProgramEnded(t *testing.T) {
	t.Parallel()
	p, found, err := helped("fail")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Start(t.Context(), found, Place{Listen: free(t)[0], Dir: t.TempDir()}, 0)
	if err == nil || !strings.Contains(err.Error(), "unknown keyword") {
		t.Errorf("%v", err)
	}
}

// Somebody who shares the port would halve the load of the one that is measured.
func TestStartRefusesASharedPort(t *testing.T) {
	t.Parallel()
	l, err := shared("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, found, err := helped("listen")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Start(t.Context(), found, Place{Listen: netip.MustParseAddrPort(l.Addr().String()), Dir: t.TempDir()}, 0)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("%v", err)
	}
}
