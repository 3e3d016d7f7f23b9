// SPDX-License-Identifier: Apache-2.0

// Package netns builds small networks for tests: network namespaces, virtual cables between them, and the iptables rules
// that redirect connections to a proxy. It needs root and the commands ip, iptables and ip6tables; without them it fails
// the test, since a test of interception that is skipped says nothing.
//
// Everything has the process and a random suffix in its name and is taken away when the test ends; Sweep takes away what a
// killed test has left. Rules are only ever made inside a
// namespace of the test; the host's own network is not touched.
package netns

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// dir is where the ip command keeps the namespaces it has made.
const dir = "/run/netns"

// Namespace is a network of its own, with its loopback interface up.
type Namespace struct {
	Name string
	t    testing.TB
}

// New makes a namespace. label is the start of its name, for people who look on.
func New(t testing.TB, label string) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("netns: these tests make network namespaces and need root")
	}
	for cmd, pkg := range map[string]string{"ip": "iproute2", "iptables": "iptables", "ip6tables": "iptables"} {
		if _, err := exec.LookPath(cmd); err != nil {
			t.Fatalf("netns: the command %s is missing: install the package %s", cmd, pkg)
		}
	}
	n := &Namespace{Name: fmt.Sprintf("%s-%d-%s", label, os.Getpid(), suffix(t)), t: t}
	command(t, "ip", "netns", "add", n.Name)
	t.Cleanup(func() { command(t, "ip", "netns", "del", n.Name) })
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// named are the names that New gives: label, process and suffix.
var named = regexp.MustCompile(`^[a-z]+-(\d+)-[0-9a-f]{6}$`)

// Sweep takes away the namespaces and cgroups of test processes that have ended without doing so, as those that were killed.
func Sweep() {
	sweepCgroups()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there never was a namespace
	}
	for _, e := range entries {
		m := named.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join("/proc", m[1])); errors.Is(err, os.ErrNotExist) {
			_ = exec.Command("ip", "netns", "del", e.Name()).Run() // another process may have done it
		}
	}
}

func suffix(t testing.TB) string {
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

// Run runs a command in the namespace and returns what it printed; a command that fails, fails the test.
func (n *Namespace) Run(args ...string) string {
	n.t.Helper()
	return command(n.t, "ip", append([]string{"netns", "exec", n.Name}, args...)...)
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("netns: %s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// Connect lays a cable between two namespaces. Each end gets its addresses, written as "10.0.0.1/24" or "fd00::1/64".
func Connect(t testing.TB, a, b *Namespace, addrsA, addrsB []string) {
	t.Helper()
	s := suffix(t)
	devA, devB := "va"+s, "vb"+s
	// Both ends are made in their namespaces: the host never sees them, and they go when the namespaces go.
	command(t, "ip", "-n", a.Name, "link", "add", devA, "type", "veth", "peer", "name", devB, "netns", b.Name)
	a.setUp(devA, addrsA)
	b.setUp(devB, addrsB)
}

func (n *Namespace) setUp(dev string, addrs []string) {
	n.t.Helper()
	for _, a := range addrs {
		n.Run("ip", "addr", "add", a, "dev", dev, "nodad")
	}
	n.Run("ip", "link", "set", dev, "up")
}

// Redirect is a rule set of the nat table that sends TCP connections to a port of this host.
type Redirect struct {
	// Inbound redirects what comes from elsewhere (PREROUTING), else what processes of the namespace send (OUTPUT).
	Inbound bool
	IPv6    bool
	To      int
	// ExceptUID and ExceptMark leave alone what a user sends, or what carries a mark; a mark of 0 and a UID below 0 except
	// nothing. They are for OUTPUT.
	ExceptUID  int
	ExceptMark int
}

// Redirect adds the rules.
func (n *Namespace) Redirect(r Redirect) {
	n.t.Helper()
	cmd, chain := "iptables", "OUTPUT"
	if r.IPv6 {
		cmd = "ip6tables"
	}
	if r.Inbound {
		chain = "PREROUTING"
	}
	rule := func(args ...string) {
		n.t.Helper()
		n.Run(append([]string{cmd, "-t", "nat", "-A", chain, "-p", "tcp"}, args...)...)
	}
	if !r.Inbound && r.ExceptUID >= 0 {
		rule("-m", "owner", "--uid-owner", strconv.Itoa(r.ExceptUID), "-j", "RETURN")
	}
	if !r.Inbound && r.ExceptMark != 0 {
		rule("-m", "mark", "--mark", strconv.Itoa(r.ExceptMark), "-j", "RETURN")
	}
	rule("-j", "REDIRECT", "--to-ports", strconv.Itoa(r.To))
}

// Do runs f on a thread in the namespace: sockets that f opens, and processes that it starts, belong there for ever,
// wherever they are used. f must open them on its own goroutine.
func (n *Namespace) Do(f func() error) error { return n.DoAs(0, f) }

// DoAs is Do with the rights of another user on this thread, as rules that look at the owner see it.
func (n *Namespace) DoAs(uid int, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it has changed for good and ends with the goroutine.
		runtime.LockOSThread()
		result <- n.enter(uid, f)
	}()
	return <-result
}

func (n *Namespace) enter(uid int, f func() error) error {
	ns, err := os.Open(filepath.Join(dir, n.Name))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netns: enter %s: %w", n.Name, err)
	}
	if uid != 0 {
		// The system call changes this thread alone, other than the function of package syscall.
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			return fmt.Errorf("netns: become user %d: %w", uid, e)
		}
	}
	return f()
}
