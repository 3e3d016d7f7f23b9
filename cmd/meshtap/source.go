// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/backoff"
)

// arrival is what a source has to tell: an event, that it is connected, or that it is not and why.
type arrival struct {
	source *source
	event  cli.Event
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

// newProxySource returns the source of a proxy's own events. kinds are those to ask for, nil for all; without follow it
// brings what the proxy remembers.
func newProxySource(p cli.Proxy, kinds []event.Kind, follow bool) *source {
	f := &feed{proxy: p, query: url.Values{}, follow: follow}
	var names []string
	for _, k := range kinds {
		names = append(names, k.String())
	}
	if names != nil {
		f.query.Set("kind", strings.Join(names, ","))
	}
	if !follow {
		f.query.Set("follow", "false")
		f.from = 1
	}
	return &source{label: p.Label(), service: p.Service, follow: follow, stream: f.read}
}

// feed is the /events of one proxy.
type feed struct {
	proxy  cli.Proxy
	query  url.Values
	follow bool
	// from is the sequence to begin with, 0 for what comes next.
	from uint64
}

// maxLine bounds a line of a feed; an event has at most event.MaxSize.
const maxLine = 2 * event.MaxSize

// read reads the stream to its end. Where the proxy cut it off because it was read too slowly, it goes on at once with
// what comes behind the last event, and what is gone by then is told in one lost event.
func (f *feed) read(ctx context.Context, send func(arrival) error) error {
	admin := cli.NewAdmin(f.proxy)
	defer admin.Close()
	for {
		cut, err := f.once(ctx, admin, send)
		if !cut || err != nil {
			if f.follow { // after an outage: what comes next
				f.from = 0
			}
			return err
		}
	}
}

// once reads the stream to its end, and tells whether it was cut off.
func (f *feed) once(ctx context.Context, admin *cli.Admin, send func(arrival) error) (cut bool, err error) {
	if f.from > 0 {
		f.query.Set("from", strconv.FormatUint(f.from, 10))
	} else {
		f.query.Del("from")
	}
	body, err := admin.Get(ctx, "/events?"+f.query.Encode())
	if err != nil {
		return false, err
	}
	defer body.Close()
	if err := send(arrival{up: true}); err != nil {
		return false, err
	}
	var held *cli.Event // a lost event that may be the stream's last
	lines := bufio.NewReaderSize(body, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return f.end(held, send, err)
		}
		if held != nil {
			if err := send(arrival{event: *held}); err != nil {
				return false, err
			}
			held = nil
		}
		if len(line) <= 1 {
			continue // a sign of life
		}
		e, err := cli.DecodeLine(append([]byte(nil), line[:len(line)-1]...))
		switch {
		case err != nil:
			err = send(arrival{unreadable: 1})
		case tooSlow(e.Event) && !f.follow && f.from == 1:
			// It is what the proxy had forgotten before it was asked; nobody missed it.
		case tooSlow(e.Event):
			held = &e
		default:
			f.from = max(f.from, e.Sequence+1)
			err = send(arrival{event: e})
		}
		if err != nil {
			return false, err
		}
	}
}

// end looks at the end of a stream. One that was cut off can be read on where there is an event to go on behind.
func (f *feed) end(held *cli.Event, send func(arrival) error, err error) (cut bool, _ error) {
	if held != nil && f.follow && f.from > 1 {
		return true, nil
	}
	if held != nil {
		if err := send(arrival{event: *held}); err != nil {
			return false, err
		}
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return false, err
}

// tooSlow reports whether the proxy's hub says that its reader missed events.
func tooSlow(e *event.Event) bool {
	return e.Kind == event.Lost && string(e.Texts[event.Reason]) == "too_slow"
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
		return b.Read(ctx, cli.Start{}, true, func(m *cli.Message) error {
			var failed error
			cli.Decode(m, func(e cli.Event) {
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
