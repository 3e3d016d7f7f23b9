// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("flushes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
			tap := newTap(t, Config{}, s)
			for n := range 1000 {
				tap.Observe(outcomeOf("x", n))
			}
			if err := tap.Close(context.Background()); err != nil {
				t.Error(err)
			}
			tap.Observe(sampleOutcome())
			a := tap.Account()
			a.check(t)
			if a.Sinks[0].Acked != 1000 || a.Dropped[Shutdown] != 1 || s.closed != 1 {
				t.Errorf("%+v, closed %d times", a, s.closed)
			}
			if err := tap.Close(context.Background()); err != nil || s.closed != 1 {
				t.Errorf("closed again: %v, %d", err, s.closed)
			}
		})
	})
	t.Run("waits for a sink that recovers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
			up := time.Now().Add(10 * time.Second)
			s.behave = func(_ *Batch, done func(error)) bool {
				if time.Now().Before(up) {
					done(errDown)
					return false
				}
				done(nil)
				return true
			}
			tap := newTap(t, Config{}, s)
			tap.Observe(sampleOutcome())
			if err := tap.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if a := tap.Account(); a.Sinks[0].Acked != 1 || a.Sinks[0].Retries == 0 {
				t.Errorf("%+v", a)
			}
		})
	})
	for name, behave := range map[string]func(*Batch, func(error)) bool{
		"a sink that is down":       func(_ *Batch, done func(error)) bool { done(errDown); return false },
		"a sink that never is done": func(*Batch, func(error)) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newMemSink(Caps{Encoding: JSON, InFlight: 2})
				s.behave = behave
				good := newMemSink(Caps{Encoding: JSON, InFlight: 2})
				tap := newTap(t, Config{}, s, good)
				for n := range 1000 {
					tap.Observe(outcomeOf("x", n))
				}
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				err := tap.Close(ctx)
				if err == nil || !strings.Contains(err.Error(), "1000 events were not delivered") {
					t.Errorf("Close says %v", err)
				}
				a := tap.Account()
				a.check(t)
				if a.Sinks[0].Dropped[Shutdown] != 1000 || a.Sinks[0].Pending != 0 || a.Sinks[1].Acked != 1000 || s.closed != 1 {
					t.Errorf("%+v, closed %d times", a, s.closed)
				}
			})
		})
	}
	t.Run("a sink that cannot be opened", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
			s.open = func() error { return errDown }
			tap := newTap(t, Config{}, s)
			tap.Observe(sampleOutcome())
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			if err := tap.Close(ctx); err == nil {
				t.Error("Close says nothing")
			}
			if a := tap.Account(); a.Sinks[0].Dropped[Shutdown] != 1 || s.opened < 3 {
				t.Errorf("%+v, opened %d times", a, s.opened)
			}
		})
	})
}

// TestCloseStuck has a sink that does not return from Send: Close does all the same, and what the sink says later
// changes nothing.
func TestCloseStuck(t *testing.T) {
	t.Parallel()
	for range 20 { // what happens first in the end is up to the scheduler
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
			s.behave = func(_ *Batch, done func(error)) bool {
				<-let
				done(nil)
				return true
			}
			tap := newTap(t, Config{}, s)
			for n := range 100 {
				tap.Observe(outcomeOf("x", n))
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			err := tap.Close(ctx)
			if err == nil || !strings.Contains(err.Error(), `sink "a" does not return from a call`) {
				t.Errorf("Close says %v", err)
			}
			before := tap.Account()
			before.check(t)
			if before.Sinks[0].Dropped[Shutdown] != 100 {
				t.Errorf("%+v", before)
			}
			close(let)
			synctest.Wait()
			after := tap.Account()
			after.check(t)
			if after.Sinks[0] != before.Sinks[0] {
				t.Errorf("%+v, and later %+v", before.Sinks[0], after.Sinks[0])
			}
		})
	}
}
