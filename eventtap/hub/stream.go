// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
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
	// SSE writes server-sent events instead of one JSON event per line.
	SSE bool
}

// The names of a query's parts.
const (
	paramFrom    = "from"
	paramFollow  = "follow"
	paramKind    = "kind"
	paramCluster = "cluster"
	paramFailed  = "failed"
	paramFormat  = "format"
)

// ParseQuery reads a query from its parts, which get returns by name, "" where one is missing:
//
//	from=now|SEQUENCE  follow=true|false  kind=outcome,circuit  cluster=NAME  failed=true|false  format=ndjson|sse
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
	switch v := get(paramFormat); v {
	case "", "ndjson":
	case "sse":
		q.SSE = true
	default:
		return q, fmt.Errorf("%s: %q, must be ndjson or sse", paramFormat, v)
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
	if len(q.Kinds) == 0 {
		return true
	}
	for _, k := range q.Kinds {
		if e.Kind == k {
			return true
		}
	}
	return false
}

// MediaType is that of the stream.
func (q *Query) MediaType() string {
	if q.SSE {
		return "text/event-stream"
	}
	return "application/x-ndjson"
}

// heartbeat is how long a stream is silent before something is written, to find out whether the reader is still there.
const heartbeat = 15 * time.Second

// ServeStream writes the events that the query asks for to w until ctx ends, the reader goes away, the hub is closed, or
// the reader falls behind. flush is called whenever there is nothing more to write at once. Events that the reader
// missed are told in a lost event whose origin is the hub; where the reader fell behind it is the last one. It returns nil
// at an end that is none of the writer's doing.
func (h *Hub) ServeStream(ctx context.Context, w io.Writer, flush func() error, q Query) error {
	s, err := h.Subscribe(q.From, q.passes)
	if err != nil {
		return err
	}
	defer s.Close()
	out := writer{w: w, flush: flush, sse: q.SSE}
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
	sse   bool
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
		beat := "\n"
		if o.sse {
			beat = ":\n\n"
		}
		if _, err := io.WriteString(o.w, beat); err != nil {
			return err
		}
		if err := o.flush(); err != nil {
			return err
		}
	}
}

func (o *writer) event(e *event.Event) error {
	b := o.buf[:0]
	if o.sse {
		b = append(append(b, "id: "...), e.ID...)
		b = append(append(b, "\nevent: "...), e.Kind.String()...)
		b = append(b, "\ndata: "...)
	}
	b = append(e.AppendJSON(b), '\n')
	if o.sse {
		b = append(b, '\n')
	}
	o.buf = b
	_, err := o.w.Write(b)
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
