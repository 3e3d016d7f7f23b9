// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// Listeners come, change, swap addresses and go while clients connect (F14). Whoever is answered is answered by a chain
// that was in force at that address, and in the end nothing is left: no connection, no goroutine, no descriptor.
func TestChurn(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	r := newRig(t, func(c *Config) { c.DrainTime = time.Millisecond })
	rnd := rand.New(rand.NewPCG(3, 5))
	var places []mesh.Address
	for range 4 {
		places = append(places, r.fixed("", nil).Address)
	}

	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() { r.hammer(places[i].String(), stop) })
	}
	for range 150 {
		var ls []*mesh.Listener
		for _, i := range rnd.Perm(len(places))[:rnd.IntN(len(places)+1)] {
			// A chain tells its place in its name; its key is one of three, so that it often stays.
			version := fmt.Sprint(rnd.IntN(3))
			l := plain(fmt.Sprint("l", rnd.IntN(len(places)), i), keyed(chainOf(places[i].String(), toyKind{}), version))
			l.Address = places[i]
			if rnd.IntN(2) == 0 {
				l.Filters = []mesh.ListenerFilter{tlsInspector()}
			}
			ls = append(ls, l)
		}
		r.apply(ls...)
	}
	close(stop)
	clients.Wait()
	r.set.Close()
	r.engine.Close()
	waitGoroutines(t, goroutines)
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors are open, before %d", n, files)
	}
}

// hammer connects, asks and checks who answered, until stop. Where nobody listens it fails to connect, and a connection
// may be ended by a drain at any time.
func (r *rig) hammer(place string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		c, err := net.DialTimeout("tcp", place, hang)
		if err != nil {
			runtime.Gosched()
			continue
		}
		c.SetDeadline(time.Now().Add(hang))
		io.WriteString(c, "x")
		got, err := io.ReadAll(io.LimitReader(c, int64(len(place)+3)))
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			r.t.Errorf("%s: neither answered nor ended", place)
		}
		if len(got) > 0 && !strings.HasPrefix(string(got), place+":1") && string(got) != "bye\n" {
			r.t.Errorf("%s: answered by %q", place, got)
		}
		c.Close()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fs, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fs)
}
