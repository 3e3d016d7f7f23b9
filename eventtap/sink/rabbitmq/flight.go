// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/meshtap/meshtap/eventtap"
)

// flight is a batch on its way. Its link's lock guards what changes.
type flight struct {
	s       *Sink
	link    *link
	batch   *eventtap.Batch
	done    func(error)
	left    int // messages without a confirmation, and one for Send
	refused []int
	why     error // of the refusal
	err     error // for which something must be sent again
}

// refuse notes that an event will never be taken.
func (f *flight) refuse(i int, why error) {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	f.note(i, why)
}

// note does what refuse does, under the link's lock.
func (f *flight) note(i int, why error) {
	if !f.isRefused(i) {
		f.refused, f.why = append(f.refused, i), why
	}
}

func (f *flight) isRefused(i int) bool { return slices.Contains(f.refused, i) }

// land takes note of a confirmation; the last one ends the flight.
func (f *flight) land() {
	f.link.mu.Lock()
	f.left--
	left, err := f.left, f.err
	f.link.mu.Unlock()
	switch {
	case left > 0:
	case err == nil && len(f.refused) > 0 && f.s.cfg.DeadLetter != "":
		f.s.wait.Go(f.bury) // publishing may block, which those who take confirmations must not
	default:
		f.end(err)
	}
}

// headerRefused says why a message is among the dead letters.
const headerRefused = "meshtap-refused"

// bury publishes what was refused to the dead letter exchange, whole events in one body, and waits until it is confirmed.
// What is larger than the broker allows would take the connection with it there too.
func (f *flight) bury() {
	var confirms []*amqp091.DeferredConfirmation
	for _, i := range f.refused {
		e := &f.batch.Events[i]
		if f.s.fits(e.Body) != nil {
			continue
		}
		m := amqp091.Publishing{ContentType: f.s.mediaType, DeliveryMode: amqp091.Persistent, MessageId: string(e.ID), AppId: "meshtap",
			Headers: amqp091.Table{headerRefused: f.why.Error()}, Body: e.Body}
		c, err := f.link.dead.PublishWithDeferredConfirm(f.s.cfg.DeadLetter, e.Kind.String(), false, false, m)
		if err != nil {
			f.end(f.s.lost(err))
			return
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		if err := f.link.buried(c); err != nil {
			f.end(f.s.lost(err))
			return
		}
	}
	f.end(nil)
}

// confirmation is an *amqp091.DeferredConfirmation, which the end of its connection answers too.
type confirmation interface {
	Done() <-chan struct{}
	Acked() bool
}

// buried waits until a dead letter is confirmed. A broker that is silent for too long loses its connection, as it does for
// events; one that blocks publishers has time.
func (l *link) buried(c confirmation) error {
	tick := time.NewTicker(l.s.cfg.AckTimeout)
	defer tick.Stop()
	for {
		select {
		case <-c.Done():
			if !c.Acked() {
				return errors.New("the dead letter exchange did not confirm")
			}
			return nil
		case <-tick.C:
			if !l.isBlocked() {
				l.drop(errSilent)
				return errSilent
			}
		}
	}
}

// end says what became of the batch.
func (f *flight) end(err error) {
	if err == nil && len(f.refused) > 0 {
		slices.Sort(f.refused)
		err = &eventtap.RefusedError{Events: f.refused, Err: fmt.Errorf("rabbitmq: %w", f.why)}
	}
	f.s.order.End(f.batch, err)
	f.done(err)
}

// lost is the error of what was not confirmed when its connection ended.
func (s *Sink) lost(why error) error {
	if errors.Is(why, eventtap.ErrReopen) {
		return why
	}
	return fmt.Errorf("rabbitmq: %w: %w", eventtap.ErrReopen, why)
}
