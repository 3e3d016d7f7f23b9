// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/cloudevent"
)

// flight is a batch on its way, with memory that is used again. The sink's runner fills it, the client's goroutine for
// promises ends it.
type flight struct {
	s       *Sink
	ctx     context.Context
	b       *eventtap.Batch
	done    func(error)
	left    atomic.Int32 // records without an answer, and one for send or bury itself
	burying bool         // the records are those that were refused, on their way to the dead letters

	records  []kgo.Record
	headers  []kgo.RecordHeader
	errs     []error
	promises []func(*kgo.Record, error) // one for each place in the batch
	refused  []int
	why      error
}

func newFlight(s *Sink) *flight { return &flight{s: s} }

// send produces what is not sent yet.
func (f *flight) send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	f.ctx, f.b, f.done, f.burying = ctx, b, done, false
	f.headers, f.refused, f.why = f.headers[:0], f.refused[:0], nil
	n := len(b.Events)
	if n > len(f.records) {
		f.grow(n)
	}
	f.left.Store(1)
	for i := range b.Events {
		e := &b.Events[i]
		f.errs[i] = nil
		if e.Sent {
			continue
		}
		r := &f.records[i]
		*r = kgo.Record{Topic: f.s.topics[e.Kind], Key: e.Key}
		if f.errs[i] = f.fill(r, e); f.errs[i] != nil {
			r.Value = e.Body
			continue
		}
		f.left.Add(1)
		f.s.client.Produce(ctx, r, f.promises[i])
	}
	f.land()
}

func (f *flight) grow(n int) {
	f.records, f.errs = make([]kgo.Record, n), make([]error, n)
	for i := len(f.promises); i < n; i++ {
		f.promises = append(f.promises, func(_ *kgo.Record, err error) {
			f.errs[i] = err
			if err != nil && !never(err) {
				f.s.order.Fail(f.b) // other records of the batch may be answered long after
			}
			f.land()
		})
	}
}

// fill lays the event out as the protocol binding says.
func (f *flight) fill(r *kgo.Record, e *eventtap.Event) error {
	at := len(f.headers)
	switch s := f.s; {
	case s.cfg.Proto:
		f.header("content-type", typeProto)
		r.Value = e.Body
	case s.cfg.Structured:
		f.header("content-type", typeJSON)
		r.Value = e.Body
	default:
		if err := s.split.Split(e.Body); err != nil {
			return err
		}
		f.header("content-type", s.split.ContentType)
		for _, a := range s.split.Attributes {
			f.header(a.Name, a.Value)
		}
		r.Value = s.split.Data
	}
	r.Headers = f.headers[at:len(f.headers):len(f.headers)]
	return nil
}

func (f *flight) header(key string, value []byte) {
	f.headers = append(f.headers, kgo.RecordHeader{Key: key, Value: value})
}

var typeJSON, typeProto = []byte(event.TypeJSON), []byte(event.TypeProto)

// land takes note of an answer; the last one ends the flight.
func (f *flight) land() {
	if f.left.Add(-1) > 0 {
		return
	}
	err := f.outcome()
	if err == nil && len(f.refused) > 0 && !f.burying && f.s.cfg.DeadLetter != "" {
		f.bury()
		return
	}
	if err == nil && len(f.refused) > 0 {
		err = &eventtap.RefusedError{Events: append([]int(nil), f.refused...), Err: f.why}
	}
	f.end(err)
}

// outcome sorts the answers. It returns an error where something must be sent again.
func (f *flight) outcome() error {
	var first error
	for i, err := range f.errs[:len(f.b.Events)] {
		switch {
		case f.b.Events[i].Sent || f.burying && !refused(f.b, f.refused, i):
		case err == nil && !f.burying:
			f.b.Events[i].Sent = true
		case err == nil:
		case never(err) && !f.burying:
			f.refused, f.why = append(f.refused, i), fmt.Errorf("kafka: %w", err)
		case never(err):
			f.why = fmt.Errorf("%w; the dead letter topic refused it too", f.why)
		case first == nil:
			first = f.s.failure(err)
		}
	}
	return first
}

func refused(b *eventtap.Batch, list []int, i int) bool {
	for _, j := range list {
		if i == j {
			return !b.Events[i].Sent
		}
	}
	return false
}

// never tells whether the cluster will never take the record.
func never(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord) ||
		errors.Is(err, cloudevent.ErrForm)
}

// headerRefused says why a record is among the dead letters.
const headerRefused = "meshtap_refused"

// bury produces what was refused to the dead letter topic.
func (f *flight) bury() {
	f.burying = true
	f.left.Store(int32(1 + len(f.refused)))
	for _, i := range f.refused {
		f.errs[i] = nil
		r := &f.records[i]
		headers := append(r.Headers, kgo.RecordHeader{Key: headerRefused, Value: []byte(f.why.Error())})
		*r = kgo.Record{Topic: f.s.cfg.DeadLetter, Key: r.Key, Value: r.Value, Headers: headers}
		f.s.client.Produce(f.ctx, r, f.promises[i])
	}
	f.land()
}

// end gives the flight back and says what became of the batch.
func (f *flight) end(err error) {
	s, b, done := f.s, f.b, f.done
	f.b, f.done, f.ctx = nil, nil, nil
	s.free <- f
	s.order.End(b, err)
	done(err)
	s.out.Done()
}

// failure is the error of a batch of which something is not stored. The client repeats what may pass by itself, so it has
// given up, and a new one is needed.
func (s *Sink) failure(err error) error {
	return fmt.Errorf("kafka: %w: %w", eventtap.ErrReopen, s.explain(err))
}
