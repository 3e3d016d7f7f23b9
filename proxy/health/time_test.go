// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
)

// These tests run on fake time and in-memory connections. A bubble does not end while a goroutine of it is left, so each
// of them is a check for leaks too.

// dials returns a Dial whose connections are served by a function, each with its number, from 1.
func dials(f func(n int, c net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	var n atomic.Int32
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func(n int32) {
			defer far.Close()
			f(int(n), far)
		}(n.Add(1))
		return near, nil
	}
}

// log collects results with the time since the start.
type log struct {
	start time.Time
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (l *log) add(r health.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := "unhealthy"
	if r.Healthy {
		text = "healthy"
	}
	if r.Reason != "" {
		text += ", " + r.Reason
	}
	l.lines = append(l.lines, fmt.Sprintf("%v %s", time.Since(l.start), text))
}

func (l *log) check(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.lines, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(l.lines, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// slowCheck has all intervals.
func slowCheck() *mesh.HealthCheck {
	cfg := httpCheck()
	cfg.Timeout = 500 * time.Millisecond
	cfg.HealthyThreshold, cfg.UnhealthyThreshold = 2, 2
	cfg.Interval, cfg.NoTrafficInterval = 5*time.Second, time.Minute
	cfg.UnhealthyInterval, cfg.UnhealthyEdgeInterval, cfg.HealthyEdgeInterval = 10*time.Second, time.Second, 2*time.Second
	return cfg
}

// begin starts a checker in a bubble.
func begin(cfg *mesh.HealthCheck, target health.Target, d health.Deps) (*log, *health.Checker) {
	l := &log{start: time.Now()}
	return l, health.Start(cfg, target, d, l.add)
}

func TestIntervals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deps()
		d.Dial = dials(answers(status(200), status(200), status(200), status(503), status(200), status(200)))
		l, c := begin(slowCheck(), health.Target{ClusterName: "backend"}, d)
		time.Sleep(70 * time.Second)
		c.SetTraffic(true) // the wait until the second minute is not cut short
		time.Sleep(73 * time.Second)
		c.Stop()
		time.Sleep(time.Hour)
		l.check(t,
			"0s healthy", "1m0s healthy", "2m0s healthy", "2m5s unhealthy, status 503", "2m15s unhealthy", "2m17s healthy",
			"2m22s healthy")
		if got, want := counts(d.Stats), "attempt 7, success 6, failure 1, network_failure 0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestTimeout: the time a check takes comes before the interval, and a timed-out connection is not used again.
func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deps()
		d.Dial = dials(func(n int, c net.Conn) {
			if n == 2 || n == 3 {
				for p := make([]byte, 1000); ; {
					if _, err := c.Read(p); err != nil {
						return
					}
				}
			}
			answers(status(200)+"!")(n, c)
		})
		l, c := begin(slowCheck(), health.Target{Traffic: true}, d)
		time.Sleep(20 * time.Second)
		c.Stop()
		l.check(t, "0s healthy", "5.5s healthy, timeout", "7s unhealthy, timeout", "17s unhealthy", "19s healthy")
	})
}

// TestContinues: a host that was healthy keeps that until the threshold says otherwise.
func TestContinues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deps()
		d.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("10.0.0.1: no") }
		l, c := begin(slowCheck(), health.Target{Traffic: true, Healthy: true}, d)
		time.Sleep(2 * time.Second)
		c.Stop()
		l.check(t, "0s healthy, connect: failed", "1s unhealthy, connect: failed")
	})
}

func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := slowCheck()
		cfg.InitialJitter, cfg.IntervalJitter, cfg.IntervalJitterPct = 10*time.Second, time.Second, 50
		d := deps()
		d.Random = func() uint64 { return uint64(3700 * time.Millisecond) }
		d.Dial = dials(answers(status(200)))
		l, c := begin(cfg, health.Target{Traffic: true}, d)
		time.Sleep(20 * time.Second)
		c.Stop()
		// 5 s, 1.2 s of 2.5 s, and 0.7 s of 1 s.
		l.check(t, "3.7s healthy", "10.6s healthy", "17.5s healthy")
	})
}

// TestHangUp: a connection that was kept and breaks before the answer is replaced, one that is new counts.
func TestHangUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deps()
		d.Dial = dials(answers(status(200)+"!", status(200), "", status(200)))
		l, c := begin(slowCheck(), health.Target{Traffic: true}, d)
		time.Sleep(16 * time.Second)
		c.Stop()
		// In the checks at 5 s and at 10 s the kept connection breaks, and a new one answers.
		l.check(t, "0s healthy", "5s healthy", "10s healthy", "15s healthy")
		if got, want := counts(d.Stats), "attempt 4, success 4, failure 0, network_failure 0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := deps()
		d.Dial = dials(answers(status(200), ""))
		l, c := begin(slowCheck(), health.Target{Traffic: true}, d)
		time.Sleep(5500 * time.Millisecond)
		c.Stop()
		l.check(t, "0s healthy", "5s healthy, read: connection closed")
		if got, want := counts(d.Stats), "attempt 2, success 1, failure 1, network_failure 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestStopAtAnyPoint stops a checker in each thing it can be at.
func TestStopAtAnyPoint(t *testing.T) {
	t.Parallel()
	waits := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	silent := dials(func(_ int, c net.Conn) {
		c.Read(make([]byte, 1000))
		c.Read(make([]byte, 1000))
	})
	late := func(ctx context.Context, network, address string) (net.Conn, error) {
		<-ctx.Done() // and gives a connection nevertheless
		return silent(ctx, network, address)
	}
	for _, tc := range []struct {
		name   string
		jitter time.Duration
		dial   func(context.Context, string, string) (net.Conn, error)
		want   []string
	}{
		{"before the first check", time.Hour, waits, nil},
		{"connecting", 0, waits, nil},
		{"connected too late", 0, late, nil},
		{"waiting for the answer", 0, silent, nil},
		{"between two checks", 0, dials(answers(status(200))), []string{"0s healthy"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg := slowCheck()
				cfg.InitialJitter, cfg.Timeout = tc.jitter, time.Minute
				d := deps()
				d.Random = func() uint64 { return uint64(30 * time.Minute) }
				d.Dial = tc.dial
				l, c := begin(cfg, health.Target{Traffic: true}, d)
				synctest.Wait()
				before := time.Now()
				c.Stop()
				if took := time.Since(before); took != 0 {
					t.Errorf("Stop took %v", took)
				}
				time.Sleep(2 * time.Hour)
				l.check(t, tc.want...)
			})
		})
	}
}

// bomb is a connection that panics when it is read.
type bomb struct{ net.Conn }

func (bomb) Read([]byte) (int, error) { panic("boom") }

// TestPanic: a check that panics counts as failed, and the next one is made as ever.
func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		d := deps()
		d.Log = zap.New(core)
		dial, n := dials(answers(status(200))), 0
		d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if n++; n == 1 {
				return bomb{c}, err
			}
			return c, err
		}
		l, c := begin(slowCheck(), health.Target{Traffic: true, ClusterName: "backend"}, d)
		time.Sleep(15 * time.Second)
		c.Stop()
		l.check(t, "0s unhealthy, internal error", "10s unhealthy", "12s healthy")
		if logs.Len() != 1 || logs.All()[0].ContextMap()["cluster"] != "backend" {
			t.Errorf("logged %v", logs.All())
		}
	})
}
