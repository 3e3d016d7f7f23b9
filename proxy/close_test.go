// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// held is an observer that keeps the first request that it is told of from ending.
type held struct {
	once           sync.Once
	reached, until chan struct{}
}

func (h *held) Observe(*mesh.Outcome) {
	h.once.Do(func() {
		close(h.reached)
		<-h.until
	})
}

// A stream of HTTP/2 may end after its connection. Close leaves what it uses open until then: a stream could dial while
// the pools' dials are waited for, and its connection would be left over.
func TestCloseWaitsForStreams(t *testing.T) { // not parallel: it looks at all goroutines of the process
	r := newRig(t)
	reg, h := stats.NewRegistry(stats.Options{}), &held{reached: make(chan struct{}), until: make(chan struct{})}
	deps := r.deps
	deps.Stats, deps.Observers = reg, []mesh.Observer{h}
	s, err := New(Config{}, deps)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	direct := &mesh.Route{Match: mesh.RouteMatch{Path: "/"}, Direct: &mesh.DirectResponse{Status: 204}}
	r.serve(manager(), []*mesh.Route{direct}, cluster("c", "127.0.0.1:1"))
	client := client2(t)
	var asked sync.WaitGroup
	asked.Go(func() {
		if resp, err := client.Get("http://" + r.addr); err == nil {
			resp.Body.Close()
		}
	})
	<-h.reached
	asked.Wait()
	client.CloseIdleConnections()
	eventually(t, "the client has gone", func() bool { return s.Connections() == 0 })
	var closing sync.WaitGroup
	closing.Go(s.Close)
	eventually(t, "Close waits for the stream", closeWaits)
	if len(counters(reg, "cluster.c.")) == 0 {
		t.Error("the clusters are closed, which the stream may still use")
	}
	close(h.until)
	closing.Wait()
}

// closeWaits reports whether a Server.Close waits, and not for its listeners.
func closeWaits() bool {
	buf := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "proxy.(*Server).Close(") && strings.Contains(g, "sync.(*WaitGroup).Wait(") && !strings.Contains(g, "/listener.") {
			return true
		}
	}
	return false
}
