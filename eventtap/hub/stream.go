// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
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
	// Boot is that of the run that From counts in; in the history of another run everything is new to the reader. "" is this
	// run's.
	Boot string
	// Once ends the stream where the reader would have to wait.
	Once bool
	// Wait is how long a stream that is read once waits for its first event.
	Wait time.Duration
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
	paramAfter   = "after"
	paramWait    = "wait"
	paramFollow  = "follow"
	paramKind    = "kind"
	paramCluster = "cluster"
	paramFailed  = "failed"
	paramFilter  = "filter"
)

// maxWait bounds Wait.
const maxWait = 5 * time.Minute

// ParseQuery reads a query from its parts, none of which must be there:
//
//	from=now|SEQUENCE  follow=true|false  kind=outcome,circuit  cluster=NAME  failed=true|false  filter=CEL
//	after=ID  wait=DURATION
//
// The last two are for readers that ask again and again, with the id of the last event that they have.
func ParseQuery(v url.Values) (Query, error) {
	var q Query
	for name := range v {
		if known := params(); !slices.Contains(known, name) {
			return q, fmt.Errorf("unknown parameter %q; known are %s", name, strings.Join(known, ", "))
		}
	}
	if err := q.parsePlace(v.Get(paramFrom), v.Get(paramAfter)); err != nil {
		return q, err
	}
	for _, v := range strings.Split(v.Get(paramKind), ",") {
		if v == "" {
			continue
		}
		k := event.ParseKind(v)
		if k == event.Unknown {
			return q, fmt.Errorf("%s: %q is not a kind of event; known are %s", paramKind, v, kindNames())
		}
		q.Kinds = append(q.Kinds, k)
	}
	q.Cluster = v.Get(paramCluster)
	follow := true
	for _, b := range []struct {
		name string
		to   *bool
	}{{paramFollow, &follow}, {paramFailed, &q.Failed}} {
		switch v := v.Get(b.name); v {
		case "":
		case "true", "false":
			*b.to = v == "true"
		default:
			return q, fmt.Errorf("%s: %q, must be true or false", b.name, v)
		}
	}
	var err error
	q.Once = !follow
	if w := v.Get(paramWait); w != "" {
		if q.Wait, err = time.ParseDuration(w); err != nil || q.Wait <= 0 || q.Wait > maxWait {
			return q, fmt.Errorf("%s: %q, must be a duration above 0, as 30s, and at most %v", paramWait, w, maxWait)
		}
		if v.Get(paramFollow) == "true" {
			return q, fmt.Errorf("%s: it ends where there is nothing more, which %s=true does not", paramWait, paramFollow)
		}
		q.Once = true
	}
	if v := v.Get(paramFilter); v != "" {
		if q.Filter, err = filter.NewCompiler().Compile(v); err != nil { // not kept: hardly anybody asks
			return q, fmt.Errorf("%s: %w", paramFilter, err)
		}
	}
	return q, nil
}

func params() []string {
	return []string{paramFrom, paramAfter, paramWait, paramFollow, paramKind, paramCluster, paramFailed, paramFilter}
}

// parsePlace reads where to begin.
func (q *Query) parsePlace(from, after string) (err error) {
	switch {
	case after != "" && from != "":
		return fmt.Errorf("%s: %s says where to begin, too", paramAfter, paramFrom)
	case after != "":
		if q.Boot, q.From, err = splitID(after); err != nil || q.From == math.MaxUint64 {
			return fmt.Errorf("%s: %q, must be the id of an event", paramAfter, after)
		}
		q.From++
	case from != "" && from != "now":
		if q.From, err = strconv.ParseUint(from, 10, 64); err != nil || q.From == 0 {
			return fmt.Errorf("%s: %q, must be now or a sequence number from 1", paramFrom, from)
		}
	}
	return nil
}

// splitID takes the id of an event apart, which is its boot and its sequence.
func splitID(id string) (boot string, seq uint64, err error) {
	at := max(strings.LastIndexByte(id, '-'), 0)
	seq, err = strconv.ParseUint(strings.TrimPrefix(id[at:], "-"), 10, 64)
	if at == 0 && err == nil {
		err = strconv.ErrSyntax
	}
	return id[:at], seq, err
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
	if q.Boot != "" && h.boot() != q.Boot {
		q.From = 1
	}
	s, err := h.Subscribe(q.From, q.passes)
	if err != nil {
		return err
	}
	defer s.Close()
	if q.Wait > 0 { // what is there is written nevertheless
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.Wait)
		defer cancel()
	}
	out := writer{w: w, flush: flush}
	var e event.Event
	for {
		err := s.Poll(&e)
		if errors.Is(err, io.EOF) && (!q.Once || q.Wait > 0 && !out.wrote) {
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
	wrote bool // an event
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
	o.buf, o.wrote = append(e.AppendJSON(o.buf[:0]), '\n'), true
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
