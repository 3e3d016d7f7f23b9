// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rabbitmq/amqp091-go"

	"github.com/meshtap/meshtap/eventtap/consume"
)

// prefetch is how many messages the broker sends before one is acknowledged.
const prefetch = 256

// rabbitMQ reads a queue.
type rabbitMQ struct {
	conn    *amqp091.Connection
	channel *amqp091.Channel
	queue   string
	follow  bool
}

func openRabbitMQ(address string, o Options) (*rabbitMQ, error) {
	conn, err := amqp091.DialConfig(address, amqp091.Config{TLSClientConfig: o.TLS, Dial: amqp091.DefaultDial(dialTime)})
	if err != nil {
		return nil, fmt.Errorf("source: RabbitMQ: %w", err)
	}
	r := &rabbitMQ{conn: conn, queue: o.Queue, follow: o.Follow}
	if err := r.prepare(o); err != nil {
		conn.Close()
		return nil, fmt.Errorf("source: RabbitMQ: %w", err)
	}
	return r, nil
}

func (r *rabbitMQ) prepare(o Options) (err error) {
	if r.channel, err = r.conn.Channel(); err != nil {
		return err
	}
	if err = r.channel.Qos(prefetch, 0, false); err != nil || o.Queue != "" {
		return err
	}
	if o.Exchange == "" {
		return errors.New("neither a queue nor an exchange is named")
	}
	q, err := r.channel.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	r.queue = q.Name
	return r.channel.QueueBind(q.Name, o.Key, o.Exchange, false, nil)
}

// Close disconnects; what was not acknowledged goes back to the queue. So may what was acknowledged last: the broker throws away
// what it has not looked at when a connection ends.
func (r *rabbitMQ) Close() error { return r.conn.Close() }

// Read implements consume.Source. Without following it reads until the queue is empty.
func (r *rabbitMQ) Read(ctx context.Context, each func(*consume.Message) error) error {
	if !r.follow {
		for ctx.Err() == nil {
			d, ok, err := r.channel.Get(r.queue, false)
			if err != nil || !ok {
				return err
			}
			if err := each(r.message(&d)); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	deliveries, err := r.channel.ConsumeWithContext(inner, r.queue, "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("source: RabbitMQ: %w", err)
	}
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return errors.Join(ctx.Err(), errors.New("source: RabbitMQ: the connection has ended"))
			}
			if err := each(r.message(&d)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// message makes a message of a delivery, whose headers are those of the CloudEvents AMQP binding 1.0.
func (r *rabbitMQ) message(d *amqp091.Delivery) *consume.Message {
	m := &consume.Message{Stored: d.Timestamp, Type: d.ContentType, Data: d.Body, Done: func() { _ = d.Ack(false) }}
	attributes := map[string]string{}
	for key, v := range d.Headers {
		for _, prefix := range []string{"cloudEvents_", "cloudEvents:"} {
			if name, ok := strings.CutPrefix(key, prefix); ok {
				attributes[name] = fmt.Sprint(v)
			}
		}
	}
	_ = m.Structure(attributes) // what cannot be joined is no event, which the reader counts
	return m
}
