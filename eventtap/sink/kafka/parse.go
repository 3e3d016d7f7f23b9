// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.KafkaSink"

// classPlace stands in a topic for the event's class.
const classPlace = "{class}"

// The defaults and limits of a configuration.
const (
	defaultTopic    = "meshtap.events"
	maxTopic        = 200
	maxLinger       = time.Second
	leastBatchBytes = 16 << 10
	defaultInFlight = 4
	maxInFlight     = 8
	defaultAck      = 10 * time.Second
	minAck, maxAck  = 100 * time.Millisecond, time.Minute
	maxPartitions   = 1024
	maxReplicas     = 5
	minRetention    = time.Second
	maxRetention    = 100 * 365 * 24 * time.Hour
)

// The bounds of a batch that a topic may ask for, in bytes.
const minBatch, maxBatch = 512, 8 << 20

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{eventtap.BusRow("kafka", TypeURL, parse, New)}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.KafkaSink{}, protofields.Honour("brokers", "topic", "create_topic", "mode", "format", "sasl", "tls", "allow_plaintext",
		"compression", "linger", "batch_max_bytes", "dead_letter_topic", "max_in_flight", "ack_timeout"))
	t.Add(&tapv1.Sasl{}, protofields.Honour("mechanism", "user", "password_file"))
	t.Add(&tapv1.CreateTopic{}, protofields.Honour("partitions", "replication_factor", "retention"))
	login.Fields(t)
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.KafkaSink
	return eventtap.ParseSink(b, &m, fields, parseBrokers, parseTopics, parseForm, parseLogin, parseCreate, parseSending)
}

func parseBrokers(c *Config, m *tapv1.KafkaSink) (err error) {
	if len(m.Brokers) == 0 {
		return registry.Errorf("brokers", "must name a broker, such as 127.0.0.1:9092")
	}
	if c.TLS, err = login.ParseTLS(m.Tls); err != nil {
		return err
	}
	c.Secure, c.Plaintext = c.TLS != nil, m.AllowPlaintext
	for i, s := range m.Brokers {
		host, port, err := net.SplitHostPort(s)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" || strings.ContainsAny(host, "/@ ") {
			return registry.Errorf(fmt.Sprintf("brokers[%d]", i), "%q, must be host:port", s)
		}
		c.Secure = c.Secure || !login.Local(host) && !m.AllowPlaintext
		c.Brokers = append(c.Brokers, s)
	}
	return nil
}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

func parseTopics(c *Config, m *tapv1.KafkaSink) error {
	if c.Topic = m.Topic; c.Topic == "" {
		c.Topic = defaultTopic
	}
	if plain := strings.ReplaceAll(c.Topic, classPlace, "x"); len(c.Topic) > maxTopic || !topicName.MatchString(plain) || plain == "." || plain == ".." {
		return registry.Errorf("topic", "%q, must be 1 to %d of [a-zA-Z0-9._-] and {class}", c.Topic, maxTopic)
	}
	c.DeadLetter = m.DeadLetterTopic
	if d := c.DeadLetter; d != "" && (len(d) > maxTopic || !topicName.MatchString(d) || d == "." || d == ".." || d == c.Topic) {
		return registry.Errorf("dead_letter_topic", "%q, must be 1 to %d of [a-zA-Z0-9._-], and not topic", d, maxTopic)
	}
	return nil
}

func parseForm(c *Config, m *tapv1.KafkaSink) (err error) {
	c.Structured, c.Proto, err = login.ParseContent(m.Format, m.Mode)
	return err
}

var mechanisms = map[tapv1.Sasl_Mechanism]string{
	tapv1.Sasl_PLAIN: mechanismPlain, tapv1.Sasl_SCRAM_SHA_256: mechanismScram256, tapv1.Sasl_SCRAM_SHA_512: mechanismScram512,
}

func parseLogin(c *Config, m *tapv1.KafkaSink) error {
	l := m.Sasl
	if l == nil {
		return nil
	}
	c.SASL = &SASL{Mechanism: mechanisms[l.Mechanism], User: l.User, PasswordFile: l.PasswordFile}
	switch {
	case c.SASL.Mechanism == "":
		return registry.Errorf("sasl.mechanism", "%s, must be PLAIN, SCRAM_SHA_256 or SCRAM_SHA_512", l.Mechanism)
	case l.User == "":
		return registry.Errorf("sasl.user", "must be set")
	case l.PasswordFile == "":
		return registry.Errorf("sasl.password_file", "must be set")
	}
	return nil
}

func parseCreate(c *Config, m *tapv1.KafkaSink) (err error) {
	t := m.CreateTopic
	if t == nil {
		return nil
	}
	partitions, err := login.ParseNumber("create_topic.partitions", t.Partitions, 0, 1, maxPartitions)
	if err != nil {
		return err
	}
	replicas, err := login.ParseNumber("create_topic.replication_factor", t.ReplicationFactor, 0, 1, maxReplicas)
	if err != nil {
		return err
	}
	c.Create = &Create{Partitions: int32(partitions), Replicas: int16(replicas)}
	c.Create.Retention, err = login.ParseDuration("create_topic.retention", t.Retention, 0, minRetention, maxRetention)
	return err
}

var compressions = map[tapv1.Compression]Compression{
	tapv1.Compression_COMPRESSION_UNSPECIFIED: "snappy", tapv1.Compression_NONE: "none", tapv1.Compression_GZIP: "gzip",
	tapv1.Compression_SNAPPY: "snappy", tapv1.Compression_LZ4: "lz4", tapv1.Compression_ZSTD: "zstd",
}

func parseSending(c *Config, m *tapv1.KafkaSink) (err error) {
	if c.Compression = compressions[m.Compression]; c.Compression == "" {
		return registry.Errorf("compression", "%s, must be NONE, GZIP, SNAPPY, LZ4 or ZSTD", m.Compression)
	}
	batch, err := login.ParseNumber("batch_max_bytes", m.BatchMaxBytes, 0, leastBatchBytes, maxBatch)
	if err != nil {
		return err
	}
	c.BatchBytes = int32(batch)
	if c.InFlight, err = login.ParseNumber("max_in_flight", m.MaxInFlight, defaultInFlight, 1, maxInFlight); err != nil {
		return err
	}
	if c.Linger, err = login.ParseDuration("linger", m.Linger, 0, 0, maxLinger); err != nil {
		return err
	}
	c.AckTimeout, err = login.ParseDuration("ack_timeout", m.AckTimeout, defaultAck, minAck, maxAck)
	return err
}
