// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

const (
	lowFilesEnv = "MESHTAP_TEST_LOW_FILES"
	lowFiles    = 256
)

// TestFewFiles runs a proxy in a process that may hold 256 descriptors (F69): half of them take connections, the last 16
// stay free, and when there are none accepting rests instead of spinning, until there are some again.
func TestFewFiles(t *testing.T) {
	if os.Getenv(lowFilesEnv) != "" {
		lowFilesChild(t)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFewFiles$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), lowFilesEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	// ask sends the child a word and returns the line that answers.
	ask := func(word string) string {
		t.Helper()
		fmt.Fprintln(in, word)
		for lines.Scan() {
			if answer, ok := strings.CutPrefix(lines.Text(), word+" "); ok {
				return answer
			}
		}
		t.Fatalf("the child has ended: %s", &stderr)
		return ""
	}
	defer func() {
		in.Close()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v\n%s", err, &stderr)
		}
	}()

	r := &rig{t: t}
	at := mesh.Address{IP: netip.MustParseAddrPort(ask("address"))}
	var open []*client
	refused := 0
	for range lowFiles {
		c := r.dialTo(at)
		if line, _ := c.r.ReadString('\n'); line == "hi\n" {
			open = append(open, c)
		} else {
			refused++
		}
	}
	if len(open) != lowFiles/2 || refused != lowFiles/2 {
		t.Errorf("%d connections were served and %d refused, want half of %d", len(open), refused, lowFiles)
	}
	for _, c := range open {
		c.Close()
	}
	if got := ask("quiet"); got != "0" {
		t.Errorf("%s connections are left", got)
	}

	// All descriptors but the last 16 are in use: connections do not get those.
	ask("occupy")
	r.dialTo(at).wantEnd()
	if got := ask("reserve"); got != "16" {
		t.Errorf("%s descriptors are left for others, want 16", got)
	}
	// None is left at all: what comes waits in the queue, and is served when there are some again.
	waiting := r.dialTo(at)
	if got := ask("rest"); got != "ok" {
		t.Errorf("accepting does not rest: %s", got)
	}
	ask("free")
	waiting.want("hi")
}

// lowFilesChild is the proxy. It does what the lines of its standard input say.
func lowFilesChild(t *testing.T) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: lowFiles, Max: lowFiles}); err != nil {
		t.Fatal(err)
	}
	for fd := lowFiles - reservedFiles; fd < lowFiles; fd++ {
		syscall.Close(fd) // what this process may have inherited
	}
	r := newRig(t)
	r.apply(plain("l", chainOf("greeter", toyKind{banner: "hi"})))
	var held []int
	hold := func(until func(fd int) bool) (n int) {
		for {
			fd, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
			if err != nil {
				return n
			}
			if until(fd) {
				syscall.Close(fd)
				return n
			}
			n++
			held = append(held, fd)
		}
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var answer any = "ok"
		switch in.Text() {
		case "address":
			answer = r.set.Status()[0].Bound
		case "quiet":
			// The clients have closed; the listener's own count is what is waited for.
			for r.set.Connections() > 0 {
				runtime.Gosched()
			}
			answer = r.set.Connections()
		case "occupy":
			hold(func(fd int) bool { return fd >= lowFiles-reservedFiles })
		case "reserve":
			answer = hold(func(int) bool { return false })
		case "rest":
			// Each rest takes at least acceptPause, so many of them in a short time would be spinning.
			start, before := time.Now(), r.number("meshtap_listener_accept_pauses_total")
			for r.number("meshtap_listener_accept_pauses_total") < before+3 {
				runtime.Gosched()
			}
			if pauses := r.number("meshtap_listener_accept_pauses_total") - before; pauses > int64(time.Since(start)/acceptPause)+2 {
				answer = fmt.Sprintf("%d pauses in %v", pauses, time.Since(start))
			}
		case "free":
			for _, fd := range held {
				syscall.Close(fd)
			}
			held = nil
		}
		fmt.Println(in.Text(), answer)
	}
}

// Connections whose clients stay silent, or send a byte now and then, hold neither goroutine nor buffer (F47), and the
// rest are served meanwhile.
func TestSlowClientsHoldNothing(t *testing.T) {
	r := newRig(t)
	l := r.fixed("l", nil)
	l.Chains, l.Filters, l.FiltersTimeout = sniChains(), []mesh.ListenerFilter{tlsInspector(), httpInspector()}, time.Hour
	r.apply(l)
	h := hello(t, "a.example")
	before := runtime.NumGoroutine()
	var slow []*client
	for i := range 1000 {
		c := r.dial("l")
		c.send(h[:1+i%100])
		slow = append(slow, c)
	}
	for end := time.Now().Add(hang); r.stat(l, "downstream_pre_cx_active") < int64(len(slow)) || runtime.NumGoroutine() > before+128; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d connections are looked at by %d goroutines", r.stat(l, "downstream_pre_cx_active"), runtime.NumGoroutine()-before)
		}
	}
	quick := r.dial("l")
	quick.send(h)
	if got, err := quick.r.ReadString(':'); err != nil || got != "a:" {
		t.Fatalf("chain %q, %v", got, err)
	}
	for i, c := range slow {
		c.send(h[1+i%100:])
		if got, err := c.r.ReadString(':'); err != nil || got != "a:" {
			t.Fatalf("chain %q, %v", got, err)
		}
	}
}

// All slow clients are closed when their time is over, each counted once.
func TestSlowClientsAreClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.fixed("l", chainOf("raw", toyKind{}))
	l.Filters, l.FiltersTimeout = []mesh.ListenerFilter{tlsInspector()}, 50*time.Millisecond
	r.apply(l)
	const n = 500
	var cs []*client
	for range n {
		c := r.dial("l")
		if _, err := io.WriteString(c.Conn, "\x16\x03"); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	for _, c := range cs {
		c.wantEnd()
	}
	if got := len(r.waitOutcomes(n)); got != n {
		t.Errorf("%d outcomes, want %d", got, n)
	}
	if got := r.stat(l, "downstream_pre_cx_timeout"); got != n {
		t.Errorf("%d timeouts counted, want %d", got, n)
	}
	r.set.Drain(t.Context(), All)
	if got := r.stat(l, "downstream_pre_cx_active"); got != 0 {
		t.Errorf("%d are still looked at", got)
	}
}
