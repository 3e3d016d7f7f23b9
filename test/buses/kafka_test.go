// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

func startKafka(t testing.TB) *server {
	t.Helper()
	p := freePorts(t, 2)
	return kafkaOn(t, p[0], p[1], p[0])
}

// kafkaOn starts a broker on a port, which sends its clients to the one that it advertises.
func kafkaOn(t testing.TB, port, controller, advertised string) *server {
	t.Helper()
	return start(t, &server{
		addr: "127.0.0.1:" + port, args: []string{"./kafka.sh", installed(t, "kafka"), t.TempDir(), port, controller, advertised},
		ready: func(addr string) error {
			c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0))
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, c)
			if err == nil && len(resp.Brokers) == 0 {
				err = errors.New("there is no broker")
			}
			return err
		},
	})
}

func kafkaConfig(addr, topic string) kafka.Config {
	return kafka.Config{Brokers: []string{addr}, Topic: topic, Create: &kafka.Create{}, Structured: true, Compression: "snappy",
		InFlight: 4, AckTimeout: 10 * time.Second}
}

// values reads a topic to where it ends now.
func values(t *testing.T, addr, topic string) (out [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for p := range int32(4) {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	var left int64
	for _, p := range resp.Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			t.Fatal(err)
		}
		left += p.Offset
	}
	for left > 0 {
		fs := c.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fs.Err0()); err != nil {
			t.Fatal(err)
		}
		for _, r := range fs.Records() {
			out = append(out, r.Value)
			left--
		}
	}
	return out
}

// TestKafka kills the broker under load, stops it for a while, and has it refuse what is too large. One broker serves all,
// since it takes seconds to start.
func TestKafka(t *testing.T) {
	t.Parallel()
	k := startKafka(t)
	t.Run("killed under load", func(t *testing.T) {
		sink.KillUnderLoad(t, sink.Killable{
			Sink: kafka.New(kafkaConfig(k.addr, "killed"), deps(t)), Kill: k.kill, Revive: k.revive, Rounds: 2, Missed: 2000,
			Events: func(t *testing.T) [][]byte { return values(t, k.addr, "killed") },
		})
	})
	t.Run("paused under load", func(t *testing.T) {
		sink.KillUnderLoad(t, sink.Killable{
			Sink: kafka.New(kafkaConfig(k.addr, "paused"), deps(t)), Kill: k.pause, Revive: k.resume, Rounds: 2, Missed: 2000,
			Events: func(t *testing.T) [][]byte { return values(t, k.addr, "paused") },
		})
	})
	t.Run("refuses", func(t *testing.T) { kafkaRefuses(t, k) })
	t.Run("console consumer", func(t *testing.T) { kafkaConsole(t, k) })
}

func kafkaRefuses(t *testing.T, k *server) {
	cfg := kafkaConfig(k.addr, "narrow")
	cfg.DeadLetter = "narrow.dead"
	c, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "narrow", 4, 1
	topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "max.message.bytes", Value: kmsg.StringPtr(fmt.Sprint(sink.NarrowBytes))}}
	req.Topics = append(req.Topics, topic)
	if _, err := req.RequestWith(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	sink.CheckNarrow(t, sink.Narrow{
		Sink:   kafka.New(cfg, deps(t)),
		Events: func(t *testing.T) [][]byte { return values(t, k.addr, "narrow") },
		Dead:   func(t *testing.T) [][]byte { return values(t, k.addr, "narrow.dead") },
	})
}

// kafkaConsole reads events with Kafka's own console consumer.
func kafkaConsole(t *testing.T, k *server) {
	cfg := kafkaConfig(k.addr, "console")
	cfg.Structured = false
	tap := sink.NewTap(t, eventtap.DefaultMemory, kafka.New(cfg, deps(t)))
	for n := range 3 {
		tap.Observe(sink.Outcome("orders", n))
	}
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := run(t, "java", "-cp", installed(t, "kafka")+"/*", "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", k.addr,
		"--topic", "console", "--from-beginning", "--max-messages", "3", "--timeout-ms", "30000",
		"--property", "print.key=true", "--property", "print.headers=true")
	if n := strings.Count(out, "\torders\t{"); n != 3 || strings.Count(out, "ce_type:io.meshtap.outcome.v1") != 3 ||
		strings.Count(out, "content-type:application/json") != 3 {
		t.Errorf("the console consumer sees\n%s", out)
	}
}
