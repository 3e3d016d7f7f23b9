// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/login"
)

// The names of SASL's mechanisms.
const (
	mechanismPlain    = "PLAIN"
	mechanismScram256 = "SCRAM-SHA-256"
	mechanismScram512 = "SCRAM-SHA-512"
)

// The bounds of the wait before the client connects again.
const retryBase, retryMax = 50 * time.Millisecond, 2 * time.Second

// defaultBatch is Kafka's own default of max.message.bytes in producers.
const defaultBatch = 1000012

// options are those of the client. Files with secrets are read at each connection, and here once, so that a file that is
// missing is an error now.
func (s *Sink) options() ([]kgo.Opt, error) {
	c := &s.cfg
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID("meshtap"), kgo.Dialer(s.dial), kgo.WithHooks(hooks{s}),
		kgo.DisableClientMetrics(),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProduceRequestTimeout(c.AckTimeout), kgo.ProducerLinger(c.Linger),
		kgo.ProducerBatchCompression(codecs[c.Compression]), kgo.ProducerBatchMaxBytesFn(s.limit),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.RetryBackoffFn(func(tries int) time.Duration { return min(retryMax, retryBase<<min(tries, 6)) }),
		kgo.MetadataMinAge(retryBase),
		// Otherwise a connection that ends at once fails the records of a partition, and those behind them are stored first.
		kgo.AlwaysRetryEOF(),
		kgo.ProducerOnDataLossDetected(func(topic string, partition int32) {
			s.log.Warn("the Kafka cluster has lost records that it had acknowledged", zap.String("topic", topic), zap.Int32("partition", partition))
		}),
	}
	if c.Secure {
		if _, err := c.TLS.Client(""); err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
	}
	if c.SASL != nil {
		if _, err := login.Secret(c.SASL.PasswordFile); err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		opts = append(opts, kgo.SASL(c.SASL.mechanism()))
	}
	return opts, nil
}

var codecs = map[Compression]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// limit returns how large a batch of a topic may be.
func (s *Sink) limit(topic string) int32 {
	if s.cfg.BatchBytes > 0 {
		return s.cfg.BatchBytes
	}
	if m := s.limits.Load(); m != nil && (*m)[topic] > 0 {
		return (*m)[topic]
	}
	return defaultBatch
}

func (l *SASL) mechanism() sasl.Mechanism {
	switch l.Mechanism {
	case mechanismScram256, mechanismScram512:
		auth := func(context.Context) (scram.Auth, error) {
			pass, err := login.Secret(l.PasswordFile)
			return scram.Auth{User: l.User, Pass: pass}, err
		}
		if l.Mechanism == mechanismScram256 {
			return scram.Sha256(auth)
		}
		return scram.Sha512(auth)
	}
	return plain.Plain(func(context.Context) (plain.Auth, error) {
		pass, err := login.Secret(l.PasswordFile)
		return plain.Auth{User: l.User, Pass: pass}, err
	})
}

// dial connects to a broker: one that is configured, or one that those know of.
func (s *Sink) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if !s.cfg.Secure && !s.cfg.Plaintext && !login.Local(host) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf(
			"the cluster names the broker %s, which is not on this machine: set tls, or allow_plaintext", address)}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	if !s.cfg.Secure {
		return d.DialContext(ctx, network, address)
	}
	settings, err := s.cfg.TLS.Client(host)
	if err != nil {
		return nil, err
	}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, settings)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("the TLS handshake takes too long; the broker may speak no TLS there")
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return secure, nil
}

// hooks sees how the client fares with its connections.
type hooks struct{ s *Sink }

// OnBrokerConnect keeps why a connection could not be made, and logs the first of a row of failures.
func (h hooks) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	s := h.s
	if err == nil {
		s.why.Store(nil)
		if s.down.Swap(false) {
			s.log.Info("connected to the Kafka broker again")
		}
		return
	}
	err = s.advise(err)
	s.why.Store(&err)
	if !s.down.Swap(true) {
		s.log.Warn("cannot connect to the Kafka broker; trying again", zap.Error(err))
	}
}

// explain adds what is known beside an error of the client.
func (s *Sink) explain(err error) error {
	if why := s.why.Load(); why != nil && !errors.Is(err, *why) {
		return fmt.Errorf("%w: %w", err, *why)
	}
	return s.advise(err)
}

// advise adds what a person can do about an error, where that is known.
func (s *Sink) advise(err error) error {
	advice := s.cfg.TLS.Advice(err)
	switch {
	case advice != "":
	case errors.Is(err, kerr.SaslAuthenticationFailed) && s.cfg.SASL != nil:
		advice = "the broker refused " + s.shown()
	case errors.Is(err, io.EOF) && s.cfg.SASL != nil:
		advice = "the broker ended the connection: it may not want " + s.shown() + ", or want TLS"
	case errors.Is(err, io.EOF):
		advice = "the broker ended the connection: it may want a login or TLS; set sasl or tls"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		advice = "set sasl.mechanism to one that the broker has"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		advice = "the user may not write to the topic: allow WRITE and DESCRIBE there"
	}
	if advice == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// shown says which credentials the broker was shown, without their secret.
func (s *Sink) shown() string {
	l := s.cfg.SASL
	return fmt.Sprintf("the user %s with the password of %s and %s", l.User, l.PasswordFile, l.Mechanism)
}

var _ kgo.HookBrokerConnect = hooks{}
