// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestKilledUnderLoad ends the fake broker again and again; see sink.KillUnderLoad.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	k := startCluster(t)
	sink.KillUnderLoad(t, sink.Killable{
		Sink: newSink(k.config()), Kill: func(*testing.T) { k.stop() }, Revive: k.start, Rounds: 3, Missed: 2000,
		Events: func(t *testing.T) [][]byte { return bodies(t, records(t, k.addr, defaultTopic)) },
	})
}

// TestAdvice has clusters that cannot be used, each for a reason that a person can do something about.
func TestAdvice(t *testing.T) {
	t.Parallel()
	plain := startCluster(t)
	secret := startCluster(t, kfake.EnableSASL(), kfake.Superuser(mechanismScram256, "tap", "right"))
	wrong := sink.WriteFile(t, "wrong", 0o600)
	open := sink.WriteFile(t, "x", 0o644)
	for _, c := range []struct {
		name   string
		k      *cluster
		change func(*Config)
		want   string
	}{
		{"no topic", plain, func(c *Config) { c.Create = nil }, "meshtap.events does not exist; create it, or set create_topic"},
		{"nobody there", plain, func(c *Config) { c.Brokers = []string{"127.0.0.1:1"} }, "connection refused"},
		{"a wrong password", secret, func(c *Config) { c.SASL = &SASL{mechanismScram256, "tap", wrong} },
			"not want the user tap with the password of " + wrong},
		{"another mechanism", secret, func(c *Config) { c.SASL = &SASL{mechanismScram512, "tap", wrong} }, "SCRAM-SHA-512"},
		{"a secret that others may read", secret, func(c *Config) { c.SASL = &SASL{mechanismPlain, "tap", open} }, "has the mode 0644"},
		{"a server without TLS", plain, func(c *Config) { c.Secure = true }, "may speak no TLS there"},
		{"a missing file", plain, func(c *Config) { c.Secure, c.TLS = true, &login.TLS{CAFile: "/none"} }, "open /none: no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := c.k.config()
			c.change(&cfg)
			s := newSink(cfg)
			if err := s.Open(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMechanisms logs in with each.
func TestMechanisms(t *testing.T) {
	t.Parallel()
	right := sink.WriteFile(t, "right\n", 0o600)
	for _, m := range []string{mechanismPlain, mechanismScram256, mechanismScram512} {
		k := startCluster(t, kfake.EnableSASL(), kfake.Superuser(m, "tap", "right"))
		cfg := k.config()
		cfg.SASL = &SASL{m, "tap", right}
		if err := sink.Try(t, newSink(cfg)); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}

// TestCodecs compresses with each.
func TestCodecs(t *testing.T) {
	t.Parallel()
	k := startCluster(t)
	for c := range codecs {
		cfg := k.config()
		cfg.Compression, cfg.Topic = c, string(c)
		if err := sink.Try(t, newSink(cfg)); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		if n := len(bodies(t, records(t, k.addr, string(c)))); n != 10 {
			t.Errorf("%s: %d records", c, n)
		}
	}
}

// TestClassTopics has a topic for each class, with settings of their own.
func TestClassTopics(t *testing.T) {
	t.Parallel()
	k := startCluster(t)
	cfg := k.config()
	cfg.Topic, cfg.Create = "mesh.{class}", &Create{Partitions: 5, Replicas: 1, Retention: time.Hour}
	tap := sink.NewTap(t, eventtap.DefaultMemory, newSink(cfg))
	tap.Observe(sink.Outcome("orders", 7))
	tap.Notify(&mesh.Notice{Kind: mesh.NoticeStart, Time: time.Now().UnixNano()})
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]event.Kind{"mesh.outcome": event.Request, "mesh.lifecycle": event.Lifecycle} {
		got := bodies(t, records(t, k.addr, topic))
		if len(got) != 1 || sink.Decode(t, got[0]).Kind != want {
			t.Errorf("%s holds %q", topic, got)
		}
	}
	info := k.c.TopicInfo("mesh.circuit")
	if n := len(k.c.PartitionInfos("mesh.circuit")); n != 5 || info == nil || *info.Configs["retention.ms"] != "3600000" {
		t.Errorf("%d partitions, %+v", n, info)
	}
}

// TestHeaders reads one record as a consumer without any of our code would.
func TestHeaders(t *testing.T) {
	t.Parallel()
	k := startCluster(t)
	tap := sink.NewTap(t, eventtap.DefaultMemory, newSink(k.config()))
	tap.Observe(sink.Outcome("orders", 7))
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := records(t, k.addr, defaultTopic)[0]
	var names []string
	for _, h := range r.Headers {
		names = append(names, h.Key)
	}
	slices.Sort(names)
	want := []string{"ce_bootid", "ce_dataschema", "ce_id", "ce_partitionkey", "ce_sequence", "ce_source", "ce_specversion",
		"ce_streamseq", "ce_time", "ce_type", "content-type"}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "ce_subject" })
	if string(r.Key) != "orders" || !slices.Equal(names, want) || !strings.Contains(string(r.Value), `"http.response.status_code":200`) {
		t.Errorf("key %s, headers %q, value %s", r.Key, names, r.Value)
	}
}

// TestOtherMachines has a cluster whose other brokers are elsewhere: without TLS nothing goes there.
func TestOtherMachines(t *testing.T) {
	t.Parallel()
	s := newSink(Config{InFlight: 1})
	_, err := s.dial(t.Context(), "tcp", "192.0.2.1:9092")
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1:9092, which is not on this machine: set tls, or allow_plaintext") {
		t.Errorf("%v", err)
	}
}

// TestRefusedByTheCluster has a cluster that says no in a way that may pass: all is there in the end, and counted once. What was on
// its way behind what was refused may be there before it.
func TestRefusedByTheCluster(t *testing.T) {
	t.Parallel()
	k := startCluster(t)
	s := newSink(k.config())
	fault := k.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: 1})
	tap := sink.NewTap(t, eventtap.DefaultMemory, s)
	for n := range 500 {
		tap.Observe(sink.Outcome("x", n))
	}
	if err := fault.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := sink.Check(t, tap)
	ids := map[string]bool{}
	for _, b := range bodies(t, records(t, k.addr, defaultTopic)) {
		ids[string(sink.Decode(t, b).ID)] = true
	}
	if len(ids) != 500 || a.Acked != 500 || a.Retries == 0 {
		t.Errorf("%d events, %+v", len(ids), a)
	}
}

// TestClosedInFlight closes the sink while the cluster does not answer: all that is in flight fails, once.
func TestClosedInFlight(t *testing.T) {
	t.Parallel()
	k := startCluster(t)
	s := newSink(k.config())
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.stop()
	done := make(chan error, 2)
	var e event.Event
	e.Reset(event.Circuit)
	e.ID, e.Source, e.PartitionKey, e.Sequence = []byte("b-1"), []byte("/s"), []byte("k"), 1
	batch := &eventtap.Batch{Events: []eventtap.Event{{ID: e.ID, Key: e.PartitionKey, Kind: e.Kind, Body: e.AppendJSON(nil)}}}
	s.Send(t.Context(), batch, func(err error) { done <- err })
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, eventtap.ErrReopen) {
		t.Errorf("%v", err)
	}
	if len(done) > 0 {
		t.Error("done was called twice")
	}
	k.start(t)
}

var leaderMoves = flag.Int("leader.moves", 10, "how often TestLeadersMove moves the leaders")

// TestLeadersMove has the partitions change their leader again and again while events are produced: each that is acknowledged is
// there once, in the order of its key (F84).
func TestLeadersMove(t *testing.T) {
	t.Parallel()
	k := startCluster(t, kfake.NumBrokers(3), kfake.Ports())
	k.addr = k.c.ListenAddrs()[0]
	cfg := k.config()
	cfg.Topic = "moving"
	s := newSink(cfg)
	tap := sink.NewTap(t, 32<<20, s)
	load := sink.StartLoad(tap)
	for n := range *leaderMoves {
		acked := sink.Check(t, tap).Acked
		sink.Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Acked > acked+500 })
		for p := range int32(3) {
			if err := k.c.MoveTopicPartition(cfg.Topic, p, int32(n)%3); err != nil {
				t.Fatal(err)
			}
		}
	}
	produced := load.End()
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := sink.Check(t, tap)
	f := sink.Read(t, bodies(t, records(t, k.addr, cfg.Topic)), true)
	t.Logf("figure: %d moves of all leaders; %d events came, %d are told to be lost of %d", *leaderMoves, f.Came, f.Lost, produced)
	if f.Came != a.Acked || f.Came+f.Lost != produced || a.Dropped[eventtap.SinkFull]+a.Dropped[eventtap.RingFull] != f.Lost {
		t.Errorf("of %d events %d came and %d are told to be lost, %+v", produced, f.Came, f.Lost, a)
	}
}
