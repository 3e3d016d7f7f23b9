// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
)

// Query is what a reader asks for. The zero value is the events from now on, all kinds, as lines.
type Query struct {
	// From is the first sequence to show; 0 begins with the next event.
	From uint64
	// Once ends the stream where the reader would have to wait.
	Once bool
	// Kinds are those to show; none means all.
	Kinds []event.Kind
	// Cluster shows the events about one cluster; "" those about all.
	Cluster string
	// Failed shows requests and connections only if they failed.
	Failed bool
	// Filter, where it is not nil, shows what it is true of; what it fails on is not shown.
	Filter *filter.Filter
}

// The names of a query's parts.
const (
	paramFrom    = "from"
	paramFollow  = "follow"
	paramKind    = "kind"
	paramCluster = "cluster"
	paramFailed  = "failed"
	paramFilter  = "filter"
)

// ParseQuery reads a query from its parts, which get returns by name, "" where one is missing:
//
//	from=now|SEQUENCE  follow=true|false  kind=outcome,circuit  cluster=NAME  failed=true|false  filter=CEL
func ParseQuery(get func(name string) string) (Query, error) {
	var q Query
	var err error
	if v := get(paramFrom); v != "" && v != "now" {
		if q.From, err = strconv.ParseUint(v, 10, 64); err != nil || q.From == 0 {
			return q, fmt.Errorf("%s: %q, must be now or a sequence number from 1", paramFrom, v)
		}
	}
	for _, v := range strings.Split(get(paramKind), ",") {
		if v == "" {
			continue
		}
		k := event.ParseKind(v)
		if k == event.Unknown {
			return q, fmt.Errorf("%s: %q is not a kind of event; known are %s", paramKind, v, kindNames())
		}
		q.Kinds = append(q.Kinds, k)
	}
	q.Cluster = get(paramCluster)
	follow := true
	for _, b := range []struct {
		name string
		to   *bool
	}{{paramFollow, &follow}, {paramFailed, &q.Failed}} {
		switch v := get(b.name); v {
		case "":
		case "true", "false":
			*b.to = v == "true"
		default:
			return q, fmt.Errorf("%s: %q, must be true or false", b.name, v)
		}
	}
	q.Once = !follow
	if v := get(paramFilter); v != "" {
		if q.Filter, err = filter.NewCompiler().Compile(v); err != nil { // not kept: hardly anybody asks
			return q, fmt.Errorf("%s: %w", paramFilter, err)
		}
	}
	return q, nil
}

func kindNames() string {
	var names []string
	for k := event.Request; k < event.NumKinds; k++ {
		names = append(names, k.String())
	}
	return strings.Join(names, ", ")
}

// passes tells whether the query asks for an event. Lost events always pass: who reads a part must know of gaps.
func (q *Query) passes(e *event.Event) bool {
	if e.Kind == event.Lost {
		return true
	}
	if q.Cluster != "" && string(e.Texts[event.Cluster]) != q.Cluster {
		return false
	}
	if q.Failed && (e.Kind == event.Request || e.Kind == event.Connection) && !e.Failed() {
		return false
	}
	if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, e.Kind) {
		return false
	}
	if q.Filter == nil {
		return true
	}
	yes, err := q.Filter.Match(e)
	return err == nil && yes
}

// heartbeat is how long a stream is silent before an empty line is written, to find out whether the reader is still
// there.
const heartbeat = 15 * time.Second

// ServeStream writes the events that the query asks for to w, one JSON event per line and per Write, until ctx ends, the
// reader goes away, the hub is closed, or the reader falls behind. flush is called whenever there is nothing more to write
// at once. Events that the reader missed are told in a lost event whose origin is the hub; where the reader fell behind it
// is the last one. It returns nil at an end that is none of the writer's doing.
func (h *Hub) ServeStream(ctx context.Context, w io.Writer, flush func() error, q Query) error {
	s, err := h.Subscribe(q.From, q.passes)
	if err != nil {
		return err
	}
	defer s.Close()
	out := writer{w: w, flush: flush}
	var e event.Event
	for {
		err := s.Poll(&e)
		if errors.Is(err, io.EOF) && !q.Once {
			if err := flush(); err != nil {
				return err
			}
			err = out.next(ctx, s, &e)
		}
		var missed *MissedError
		switch {
		case err == nil:
			err = out.event(&e)
		case errors.As(err, &missed):
			if err = out.missed(missed); err == nil && missed.Slow {
				return flush()
			}
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return flush()
		}
		if err != nil {
			return err
		}
	}
}

// writer writes one reader's stream.
type writer struct {
	w     io.Writer
	flush func() error
	buf   []byte
}

// next waits for an event, and writes something when the stream is silent for long.
func (o *writer) next(ctx context.Context, s *Subscriber, e *event.Event) error {
	for {
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		err := s.Next(wait, e)
		silent := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !silent {
			return err
		}
		if _, err := io.WriteString(o.w, "\n"); err != nil {
			return err
		}
		if err := o.flush(); err != nil {
			return err
		}
	}
}

func (o *writer) event(e *event.Event) error {
	o.buf = append(e.AppendJSON(o.buf[:0]), '\n')
	_, err := o.w.Write(o.buf)
	return err
}

// missed tells of events that went by.
func (o *writer) missed(m *MissedError) error {
	var e event.Event
	e.Reset(event.Lost)
	now := time.Now().UnixNano()
	e.ID = fmt.Appendf(nil, "hub-missed-%d", now)
	e.Source, e.PartitionKey, e.Time = []byte("/meshtap/hub"), []byte(event.NoKey), now
	e.Texts[event.Reason], e.Texts[event.Origin] = []byte("too_slow"), []byte(eventtap.HubName)
	e.Numbers[event.Count] = int64(m.Count)
	return o.event(&e)
}
