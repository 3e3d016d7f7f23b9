// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net"
	"sync"
	"time"
)

// conn is a client's connection. It gives each write a time of its own, so that a long answer may take long but a client
// that does not read is cut off.
type conn struct {
	net.Conn
	// hurried connections came when few places were left.
	hurried bool

	mu sync.Mutex
	// Guarded by mu.
	stopped bool
	cancel  context.CancelFunc // of the stream that is written
}

// Write gives the write its time.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetReadDeadline sets when reading ends: never later than a hurried connection may take, and at once after stop.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		t = time.Unix(1, 0)
	} else if c.hurried {
		if soon := time.Now().Add(hurryTime); t.IsZero() || t.After(soon) {
			t = soon
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// stop ends reading and the stream that is written.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.Conn.SetReadDeadline(time.Unix(1, 0))
	if c.cancel != nil {
		c.cancel()
	}
}

// stream calls write with a context that ends when the client has hung up or the server is closed. The connection serves
// nothing afterwards.
func (c *conn) stream(write func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.mu.Lock()
	c.cancel = cancel
	if c.stopped {
		cancel()
	}
	c.mu.Unlock()
	_ = c.SetReadDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() { // a client that hangs up ends the read
		var p [64]byte
		for {
			if _, err := c.Conn.Read(p[:]); err != nil {
				cancel()
				return
			}
		}
	})
	err := write(ctx)
	c.stop()
	wg.Wait()
	return err
}
