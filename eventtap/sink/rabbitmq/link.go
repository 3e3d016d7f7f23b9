// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// link is one connection with its channels. Two goroutines belong to it: watch, which sorts confirmations, and
// watchBlocked. Both end with the connection.
type link struct {
	s        *Sink
	conn     *amqp091.Connection
	raw      net.Conn
	channel  *amqp091.Channel // for events; Send publishes, nobody else
	dead     *amqp091.Channel // for refused events; nil where they go nowhere
	confirms chan amqp091.Confirmation
	returns  chan amqp091.Return
	closes   chan *amqp091.Error
	blocks   chan amqp091.Blocking
	watching sync.WaitGroup
	gone     chan struct{} // closed when nothing will be confirmed any more

	mu      sync.Mutex
	pending []slot        // what is published and not confirmed, in the order of delivery tags
	blocked chan struct{} // closed when the broker lets publish again; nil where it does
	nacked  time.Time     // of the first nack since the last ack; zero where there is none
	why     error         // for which the link is gone
}

// slot is a place in a batch.
type slot struct {
	f *flight
	i int
}

// newLink opens the channels.
func (s *Sink) newLink(conn *amqp091.Connection, raw net.Conn) (l *link, err error) {
	l = &link{s: s, conn: conn, raw: raw, gone: make(chan struct{}),
		confirms: make(chan amqp091.Confirmation, maxPending), returns: make(chan amqp091.Return, maxPending),
		closes: make(chan *amqp091.Error, 2), blocks: make(chan amqp091.Blocking, 4)}
	conn.NotifyBlocked(l.blocks)
	if l.channel, err = conn.Channel(); err != nil {
		return nil, err
	}
	l.channel.NotifyClose(l.closes)
	l.channel.NotifyPublish(l.confirms)
	l.channel.NotifyReturn(l.returns)
	if err = l.channel.Confirm(false); err != nil || s.cfg.DeadLetter == "" {
		return l, err
	}
	if l.dead, err = conn.Channel(); err != nil {
		return nil, err
	}
	return l, l.dead.Confirm(false)
}

// admitted waits while the broker blocks publishers.
func (l *link) admitted(ctx context.Context) error {
	l.mu.Lock()
	blocked := l.blocked
	l.mu.Unlock()
	if blocked != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.gone:
		case <-blocked:
		}
	}
	return l.cause()
}

// publish publishes an event of a batch. It returns false when the link is of no use any more.
func (l *link) publish(f *flight, i int, key string, m amqp091.Publishing) bool {
	l.mu.Lock()
	if l.why != nil {
		f.err = l.s.lost(l.why)
		l.mu.Unlock()
		return false
	}
	f.left++
	l.pending = append(l.pending, slot{f, i}) // before it can be confirmed
	l.mu.Unlock()
	if err := l.channel.Publish(l.s.cfg.Exchange, key, true, false, m); err != nil {
		l.drop(err)
		return false
	}
	return true
}

// drop ends the connection, for a reason that matters where there is no other yet.
func (l *link) drop(err error) {
	l.mu.Lock()
	if l.why == nil {
		l.why = err
	}
	l.mu.Unlock()
	l.raw.Close()
}

// cause returns why the link is gone, or nil.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// end closes the connection and joins its goroutines.
func (l *link) end() {
	_ = l.conn.CloseDeadline(time.Now().Add(time.Second)) // where it is closed already, this says so
	l.raw.Close()
	l.watching.Wait()
}

// errSilent is why a connection is given up that confirms nothing.
var errSilent = errors.New("no confirmation within ack_timeout")

// watch takes confirmations until the channel is closed, and then fails what has none.
func (l *link) watch() {
	timeout := l.s.cfg.AckTimeout
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for alive := true; alive; {
		select {
		case c, ok := <-l.confirms:
			if alive = ok; ok {
				l.takeReturns()
				l.confirm(c)
				timer.Reset(timeout)
			}
		case <-timer.C:
			if l.waiting() {
				l.drop(errSilent)
			}
			timer.Reset(timeout)
		}
	}
	l.fail()
	// A channel that the broker has closed takes its connection with it, since a link has one of each.
	_ = l.conn.CloseDeadline(time.Now().Add(time.Second))
	l.raw.Close()
}

// waiting tells whether a confirmation is due.
func (l *link) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending) > 0 && l.blocked == nil
}

func (l *link) isBlocked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked != nil
}

// takeReturns takes note of messages that came back. The broker returns a message before it confirms it, and the client
// hands both over in that order, so those that belong to a confirmation at hand are there.
func (l *link) takeReturns() {
	for {
		select {
		case r, ok := <-l.returns:
			if !ok {
				return
			}
			l.mu.Lock()
			for _, p := range l.pending {
				if string(p.f.batch.Events[p.i].ID) == r.MessageId {
					p.f.note(p.i, fmt.Errorf("the exchange %s returned it: %s (%d); bind a queue that takes the routing key %s",
						r.Exchange, r.ReplyText, r.ReplyCode, r.RoutingKey))
				}
			}
			l.mu.Unlock()
		default:
			return
		}
	}
}

// confirm takes note of what became of the first message that is pending. A connection on which nothing but nacks came for
// ack_timeout is given up: one that was made while a quorum queue had no leader gets no ack any more, where a new one does.
func (l *link) confirm(c amqp091.Confirmation) {
	l.mu.Lock()
	if len(l.pending) == 0 {
		l.mu.Unlock()
		l.drop(fmt.Errorf("the broker confirmed message %d, which it was not sent", c.DeliveryTag))
		return
	}
	p := l.pending[0]
	l.pending[0] = slot{}
	l.pending = l.pending[1:]
	stuck := false
	if c.Ack {
		l.nacked = time.Time{}
		p.f.batch.Events[p.i].Sent = !p.f.isRefused(p.i)
	} else {
		p.f.err = errNack
		if l.nacked.IsZero() {
			l.nacked = time.Now()
		}
		stuck = time.Since(l.nacked) > l.s.cfg.AckTimeout
	}
	l.mu.Unlock()
	if stuck {
		l.drop(errNack)
	}
	p.f.land()
}

// errNack is a message that the broker could not take this time.
var errNack = errors.New("rabbitmq: the broker could not take a message (basic.nack); its queue may be full")

// fail ends the link and fails what is pending.
func (l *link) fail() {
	err := error(errors.New("the connection was closed"))
	select {
	case e, ok := <-l.closes:
		if ok && e != nil {
			err = e
			l.s.learn(e.Reason)
		}
	default:
	}
	l.mu.Lock()
	if l.why == nil {
		l.why = l.s.advise(err)
	}
	err = l.s.lost(l.why)
	pending := l.pending
	l.pending = nil
	for _, p := range pending {
		p.f.err = err
	}
	close(l.gone)
	l.mu.Unlock()
	for _, p := range pending {
		p.f.land()
	}
}

var tooLarge = regexp.MustCompile(`larger than (?:configured )?max size (\d+)`)

// learn notes how large a message may be where the broker has closed the channel for one that was larger: it does not say
// which.
func (s *Sink) learn(reason string) {
	if m := tooLarge.FindStringSubmatch(reason); m != nil {
		if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			s.largest.Store(n)
		}
	}
}

// watchBlocked takes note of when the broker lets nobody publish, because it lacks memory or disk space.
func (l *link) watchBlocked() {
	for b := range l.blocks {
		l.mu.Lock()
		switch {
		case b.Active && l.blocked == nil:
			l.blocked = make(chan struct{})
			l.s.log.Warn("the RabbitMQ broker blocks publishers", zap.String("reason", b.Reason))
		case !b.Active && l.blocked != nil:
			close(l.blocked)
			l.blocked = nil
			l.s.log.Info("the RabbitMQ broker lets publish again")
		}
		l.mu.Unlock()
	}
}
