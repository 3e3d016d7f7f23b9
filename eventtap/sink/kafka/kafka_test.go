// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// cluster is a fake Kafka cluster that can be ended and come back on the same port with what it had stored.
type cluster struct {
	c    *kfake.Cluster
	opts []kfake.Opt
	addr string
}

// startCluster starts one broker on a free port of the loopback.
func startCluster(t *testing.T, opts ...kfake.Opt) *cluster {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	k := &cluster{addr: l.Addr().String()}
	k.opts = append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(t.TempDir()), kfake.DefaultNumPartitions(3)}, opts...)
	k.start(t)
	t.Cleanup(k.stop)
	return k
}

func (k *cluster) start(t *testing.T) {
	t.Helper()
	c, err := kfake.NewCluster(k.opts...)
	if err != nil {
		t.Fatal(err)
	}
	k.c = c
}

func (k *cluster) stop() { k.c.Close() }

func (k *cluster) config() Config {
	return Config{Brokers: []string{k.addr}, Topic: defaultTopic, Create: &Create{}, Compression: "snappy",
		InFlight: defaultInFlight, AckTimeout: defaultAck}
}

func newSink(c Config) *Sink {
	return New(c, eventtap.SinkDeps{Log: zap.NewNop(), Random: func() float64 { return 0.5 }})
}

// records reads all partitions of a topic from the beginning to where they end now.
func records(t *testing.T, addr, topic string, opts ...kgo.Opt) (out []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	opts = append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}, opts...)
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	left := ends(ctx, t, c, topic)
	for left > 0 {
		fs := c.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fs.Err0()); err != nil {
			t.Fatal(err)
		}
		for _, r := range fs.Records() {
			out = append(out, r)
			left--
		}
	}
	return out
}

// ends returns how many records a topic holds.
func ends(ctx context.Context, t *testing.T, c *kgo.Client, topic string) (n int64) {
	t.Helper()
	meta := kmsg.NewPtrMetadataRequest()
	meta.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr(topic)}}
	m, err := meta.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for _, p := range m.Topics[0].Partitions {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p.Partition, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	for _, shard := range c.RequestSharded(ctx, req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, tp := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range tp.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					t.Fatal(err)
				}
				n += p.Offset
			}
		}
	}
	return n
}

// bodies puts records back into the form that a structured record has.
func bodies(t *testing.T, records []*kgo.Record) (out [][]byte) {
	t.Helper()
	for _, r := range records {
		out = append(out, body(t, r))
	}
	return out
}

func body(t *testing.T, r *kgo.Record) []byte {
	t.Helper()
	h := map[string]string{}
	for _, x := range r.Headers {
		h[x.Key] = string(x.Value)
	}
	e := new(event.Event)
	switch h["content-type"] {
	case event.TypeJSON, event.TypeProto:
		e = sink.Decode(t, r.Value)
	case "application/json":
		parts := []string{fmt.Sprintf(`"datacontenttype":"application/json","data":%s`, r.Value)}
		for k, v := range h {
			if name, ok := strings.CutPrefix(k, "ce_"); ok {
				parts = append(parts, fmt.Sprintf("%q:%q", name, v))
			}
		}
		r.Value = fmt.Appendf(nil, "{%s}", strings.Join(parts, ","))
		e = sink.Decode(t, r.Value)
		if h["ce_specversion"] != "1.0" || h["ce_id"] != string(e.ID) || h["ce_type"] != e.Kind.Type() {
			t.Errorf("headers %v", h)
		}
	default:
		t.Fatalf("content-type %q", h["content-type"])
	}
	if string(r.Key) != string(e.PartitionKey) {
		t.Errorf("the key is %q, the event's %q", r.Key, e.PartitionKey)
	}
	return r.Value
}

// TestConformance runs the suite in each form, against a broker that is killed and comes back.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"binary":     func(*Config) {},
		"structured": func(c *Config) { c.Structured, c.Compression = true, "none" },
		"protobuf, in flight": func(c *Config) {
			c.Structured, c.Proto, c.InFlight, c.Linger = true, true, maxInFlight, 2*time.Millisecond
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink.Run(t, func(t *testing.T) sink.Bus { return newBus(t, change) })
		})
	}
}

func newBus(t *testing.T, change func(*Config)) sink.Bus {
	k := startCluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "tap", "right"))
	cfg := k.config()
	cfg.SASL = &SASL{Mechanism: mechanismPlain, User: "tap", PasswordFile: sink.WriteFile(t, "right\n", 0o600)}
	change(&cfg)
	in := kgo.SASL(plain.Auth{User: "tap", Pass: "right"}.AsMechanism())
	return sink.Bus{
		Patient: true,
		Sink:    func(*testing.T) eventtap.Sink { return newSink(cfg) },
		Events:  func(t *testing.T) [][]byte { return bodies(t, records(t, k.addr, defaultTopic, in)) },
		Kill:    func(*testing.T) { k.stop() },
		Revive:  k.start,
		Stranger: func(t *testing.T) eventtap.Sink {
			stranger := cfg
			stranger.SASL = &SASL{Mechanism: mechanismPlain, User: "tap", PasswordFile: sink.WriteFile(t, "wrong", 0o600)}
			return newSink(stranger)
		},
		Narrow: func(t *testing.T) sink.Narrow { return narrow(t, change) },
		Secure: func(t *testing.T) (*sink.Authority, func(login.TLS) eventtap.Sink) {
			a := sink.NewAuthority(t)
			k := startCluster(t, kfake.TLS(a.Server(t)))
			return a, func(l login.TLS) eventtap.Sink {
				cfg := k.config()
				cfg.TLS, cfg.Secure = &l, true
				change(&cfg)
				return newSink(cfg)
			}
		},
	}
}

// narrow is a cluster whose topic takes small records only.
func narrow(t *testing.T, change func(*Config)) sink.Narrow {
	k := startCluster(t)
	if err := k.c.CreateTopic(defaultTopic, 3, map[string]string{"max.message.bytes": fmt.Sprint(sink.NarrowBytes)}); err != nil {
		t.Fatal(err)
	}
	cfg := k.config()
	cfg.DeadLetter = "dead"
	change(&cfg)
	return sink.Narrow{
		Sink:   newSink(cfg),
		Events: func(t *testing.T) [][]byte { return bodies(t, records(t, k.addr, defaultTopic)) },
		Dead: func(t *testing.T) [][]byte {
			rs := records(t, k.addr, "dead")
			for _, r := range rs {
				if h := r.Headers[len(r.Headers)-1]; h.Key != headerRefused || !strings.Contains(string(h.Value), "MESSAGE_TOO_LARGE") {
					t.Errorf("the last header is %s: %s", h.Key, h.Value)
				}
			}
			return bodies(t, rs)
		},
	}
}
