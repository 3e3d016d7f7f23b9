// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/consume"
	buses "github.com/meshtap/meshtap/eventtap/consume/source"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/backoff"
)

// arrival is what a source has to tell: an event, that it is connected, or that it is not and why.
type arrival struct {
	source *source
	event  consume.Event
	up     bool
	down   error
	// unreadable counts what came and is no event.
	unreadable int
}

// source brings live events of one proxy, or of a bus, over a channel. Its goroutine belongs to tap.
type source struct {
	label string
	// service is what the context calls the proxy's service, "" where it does not say.
	service string
	follow  bool
	stream  func(ctx context.Context, send func(arrival) error) error

	// owned by tap
	ever, lost bool // it was connected once; it is not now
}

// errEnded says that a stream is over although nobody ended it here.
var errEnded = errors.New("the stream has ended")

// run brings events until ctx ends, or, unless it follows, until there are no more. It connects again and again.
func (s *source) run(ctx context.Context, out chan<- arrival) {
	send := func(a arrival) error {
		a.source = s
		select {
		case out <- a:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	wait := backoff.Backoff{Base: 500 * time.Millisecond, Max: 5 * time.Second, Floor: 100 * time.Millisecond}
	for {
		err := s.stream(ctx, func(a arrival) error {
			if a.up {
				wait.Reset()
			}
			return send(a)
		})
		if ctx.Err() != nil || err == nil && !s.follow {
			return
		}
		if err == nil {
			err = errEnded
		}
		if send(arrival{down: err}) != nil || !s.follow {
			return
		}
		select {
		case <-time.After(wait.Next(rand.Float64)):
		case <-ctx.Done():
			return
		}
	}
}

// newProxySource returns the source of a proxy's own events. kinds are those to ask for, nil for all, expression what has
// to be true of them, "" where nothing has; without follow it
// brings what the proxy remembers.
func newProxySource(p cli.Proxy, kinds []event.Kind, expression string, follow bool) *source {
	q := url.Values{}
	var names []string
	for _, k := range kinds {
		names = append(names, k.String())
	}
	if names != nil {
		q.Set("kind", strings.Join(names, ","))
	}
	if expression != "" {
		q.Set("filter", expression)
	}
	f := &buses.Feed{Query: q, Follow: follow}
	if !follow {
		f.From = 1
	}
	read := func(ctx context.Context, send func(arrival) error) error {
		admin := cli.NewAdmin(p)
		defer admin.Close()
		f.Get = admin.Get
		f.Up = func() error { return send(arrival{up: true}) }
		f.Unreadable = func([]byte) error { return send(arrival{unreadable: 1}) }
		return f.Read(ctx, func(e consume.Event) error { return send(arrival{event: e}) })
	}
	return &source{label: p.Label(), service: p.Service, follow: follow, stream: read}
}

// newBusSource returns the source of what is published to a bus from now on.
func newBusSource(c cli.BusConfig) *source {
	s := &source{label: "the bus", follow: true}
	s.stream = func(ctx context.Context, send func(arrival) error) error {
		b, err := cli.OpenBus(ctx, c)
		if err != nil {
			return err
		}
		defer b.Close()
		if err := send(arrival{up: true}); err != nil {
			return err
		}
		return b.Read(ctx, buses.Start{}, true, func(m *consume.Message) error {
			var failed error
			consume.Decode(m, func(e consume.Event) {
				if failed == nil {
					failed = send(arrival{event: e})
				}
			}, func(error) {
				if failed == nil {
					failed = send(arrival{unreadable: 1})
				}
			})
			return failed
		})
	}
	return s
}
