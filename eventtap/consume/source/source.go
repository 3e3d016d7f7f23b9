// SPDX-License-Identifier: Apache-2.0

// Package source reads events from where the tap's sinks write them: NATS JetStream, Kafka, RabbitMQ, ZeroMQ, files, and a
// proxy's own /events. Each is a consume.Source, whose Read owns all goroutines that it starts and joins them.
//
//	nats://HOST:PORT              a JetStream stream; tls:// with TLS
//	kafka://HOST:PORT[,...]       topics
//	amqp://[USER:PASSWORD@]HOST   a queue of RabbitMQ; amqps:// with TLS
//	zmq+sub://HOST:PORT           what a PUB, PUSH or DEALER sink that listens sends: zmq+sub, zmq+pull, zmq+dealer; with
//	                              USER:PASSWORD@ before the host where it wants a login
//	http://HOST:PORT, unix:///P   a proxy's administration server
//	PATH                          a file that the file sink wrote, with the older ones beside it; "-" is standard input
package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/consume/stream"
)

// Options say what to read. What a bus does not have is without effect.
type Options struct {
	// Follow goes on when everything that was there is read.
	Follow bool
	// Start is where to begin. For Kafka Since and the zero value count, for a file and a queue nothing does.
	Start Start
	// All begins with the oldest instead.
	All bool
	// Stream and Subject are those of NATS; the defaults are those of the tap's configuration.
	Stream, Subject string
	// Topics are those of Kafka.
	Topics []string
	// Group shares the messages among the consumers with the same name, and remembers what was handled: a durable consumer
	// of NATS, a consumer group of Kafka.
	Group string
	// Queue is that of RabbitMQ. Where it is "", a queue of this reader's own is bound to Exchange with Key.
	Queue, Exchange, Key string
	// Prefix is the beginning of the topics to subscribe to at ZeroMQ.
	Prefix string
	// Curve encrypts a connection to ZeroMQ; nil does not.
	Curve *Curve
	// TLS is how a server is verified; nil is the system's authorities.
	TLS *tls.Config
	// NATS and Kafka are further options of their clients, such as credentials.
	NATS  []nats.Option
	Kafka []kgo.Opt
}

// Curve are the keys of ZeroMQ's mechanism CURVE, each 40 characters of Z85 or 64 of hexadecimal: the public one of the sink,
// and the secret one of the reader.
type Curve struct{ Server, Secret string }

// Start is where reading begins; see there.
type Start = stream.Start

const dialTime = 5 * time.Second

// ErrScheme says that an address is of no kind of source.
var ErrScheme = errors.New("must be nats://, tls://, kafka://, amqp://, amqps://, zmq+sub://, zmq+pull://, zmq+dealer://, http://, unix:// or a file")

// Open connects to what an address names, as in the package's comment.
func Open(ctx context.Context, address string, o Options) (consume.Source, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return NewFile(address, o.Follow), nil
	}
	switch scheme {
	case "nats", "tls":
		n, err := stream.Open(ctx, address, o.Stream, o.NATS...)
		if err != nil {
			return nil, err
		}
		return &natsSource{n, o}, nil
	case "kafka":
		return newKafka(strings.Split(rest, ","), o)
	case "amqp", "amqps":
		return openRabbitMQ(address, o)
	case "zmq+sub", "zmq+pull", "zmq+dealer":
		return newZeroMQ(strings.TrimPrefix(scheme, "zmq+"), rest, o)
	case "http", "unix":
		return newProxy(address, o)
	case "file":
		u, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		return NewFile(u.Path, o.Follow), nil
	}
	return nil, fmt.Errorf("source: %q: %w", scheme+"://", ErrScheme)
}
