// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"net"
	"sync"
	"testing"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Collector is an access log service in this process, which keeps what it is sent. It can be killed and brought back, and
// made to read nothing.
type Collector struct {
	accesslogpb.UnimplementedAccessLogServiceServer
	tb     testing.TB
	addr   string
	opts   []grpc.ServerOption
	server *grpc.Server
	served sync.WaitGroup

	mu       sync.Mutex
	messages []Message     // guarded by mu
	more     chan struct{} // guarded by mu: closed with the next message
	gate     chan struct{} // guarded by mu: where it is not nil, streams read on when it is closed
}

// Message is one message of a stream. First says that it was the stream's first.
type Message struct {
	*accesslogpb.StreamAccessLogsMessage
	// Log is the name of the stream's log, Header what the stream began with.
	Log    string
	Header metadata.MD
	First  bool
}

// StartCollector runs a service on a free loopback port until the test ends.
func StartCollector(tb testing.TB, opts ...grpc.ServerOption) *Collector {
	tb.Helper()
	c := &Collector{tb: tb, opts: opts, addr: "127.0.0.1:0", more: make(chan struct{})}
	c.Revive()
	tb.Cleanup(c.Kill)
	return c
}

// Addr returns where the service is, or was.
func (c *Collector) Addr() string { return c.addr }

// Revive starts the service, at the address that it had.
func (c *Collector) Revive() {
	c.tb.Helper()
	var ln net.Listener
	var err error
	for deadline := time.Now().Add(hang); ; time.Sleep(10 * time.Millisecond) {
		if ln, err = net.Listen("tcp", c.addr); err == nil {
			break
		}
		if time.Now().After(deadline) { // somebody else may have the port for a moment
			c.tb.Fatal(err)
		}
	}
	c.addr = ln.Addr().String()
	s := grpc.NewServer(c.opts...)
	accesslogpb.RegisterAccessLogServiceServer(s, c)
	c.server = s
	c.served.Go(func() { _ = s.Serve(ln) })
}

// Kill ends the service and its connections.
func (c *Collector) Kill() {
	c.Block(false)
	c.server.Stop()
	c.served.Wait()
}

// Block makes the streams read nothing, or go on reading.
func (c *Collector) Block(block bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gate != nil {
		close(c.gate)
		c.gate = nil
	}
	if block {
		c.gate = make(chan struct{})
	}
}

// StreamAccessLogs implements the service.
func (c *Collector) StreamAccessLogs(s accesslogpb.AccessLogService_StreamAccessLogsServer) error {
	header, _ := metadata.FromIncomingContext(s.Context())
	log := ""
	for first := true; ; first = false {
		c.mu.Lock()
		gate := c.gate
		c.mu.Unlock()
		if gate != nil {
			select {
			case <-gate:
			case <-s.Context().Done():
			}
		}
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if first {
			log = m.GetIdentifier().GetLogName()
		}
		c.mu.Lock()
		c.messages = append(c.messages, Message{m, log, header, first})
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
	}
}

// Until waits until what came is right, and returns it.
func (c *Collector) Until(right func([]Message) bool) []Message {
	c.tb.Helper()
	late := time.After(hang)
	for {
		c.mu.Lock()
		got, more := c.messages[:len(c.messages):len(c.messages)], c.more
		c.mu.Unlock()
		if right(got) {
			return got
		}
		select {
		case <-more:
		case <-late:
			c.tb.Fatalf("the access log service has got %d messages, and not what it is to get; the last is %.500v", len(got), got[max(0, len(got)-1):])
		}
	}
}
