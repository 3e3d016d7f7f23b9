// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/consume/source"
	"github.com/meshtap/meshtap/eventtap/consume/stream"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/hub"
	"github.com/meshtap/meshtap/eventtap/sink/file"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/eventtap/sink/nats"
	"github.com/meshtap/meshtap/eventtap/sink/zeromq"
	"github.com/meshtap/meshtap/internal/zmtp"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

const waiting = 60 * time.Second

// fill has a tap write n events to a sink, and returns when all are acknowledged.
func fill(t *testing.T, s eventtap.Sink, n int) {
	t.Helper()
	tap := sink.NewTap(t, 16<<20, s)
	for i := range n {
		tap.Observe(sink.Outcome(fmt.Sprint("service-", i%5), i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	if err := tap.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func deps() eventtap.SinkDeps {
	return eventtap.SinkDeps{Log: zap.NewNop(), Random: func() float64 { return 0.5 }}
}

// readAll reads a source to its end, or until it has n events, and checks that nothing is missing and each key in order.
func readAll(t *testing.T, address string, o source.Options, n int) consume.Counts {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	src, err := source.Open(ctx, address, o)
	if err != nil {
		t.Fatal(err)
	}
	c := consume.New(src, consume.Options{Patience: 1 << 20, Gap: func(g consume.Gap) { t.Errorf("%+v", g) }})
	last := map[string]uint64{}
	for i := 0; !o.Follow || i < n; i++ {
		d, err := c.Next(ctx)
		if errors.Is(err, io.EOF) && !o.Follow {
			break
		}
		if err != nil {
			t.Fatalf("after %d events: %v; %+v", i, err, c.Counts())
		}
		if key := string(d.PartitionKey); d.Sequence <= last[key] {
			t.Fatalf("%s: %d after %d", key, d.Sequence, last[key])
		} else {
			last[key] = d.Sequence
		}
		d.Done()
	}
	c.End()
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	return c.Counts()
}

func TestFile(t *testing.T) {
	t.Parallel()
	for _, proto := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "events")
		const n = 2000
		fill(t, file.New(file.Config{Path: path, MaxBytes: 128 << 10, MaxFiles: 50, Proto: proto}), n)
		if _, err := os.Stat(path + ".2"); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, path, source.Options{}, n); got != (consume.Counts{Events: n}) {
			t.Errorf("protobuf %v: %+v", proto, got)
		}
		if got := readAll(t, "file://"+path, source.Options{Follow: true}, n); got.Events != n {
			t.Errorf("followed, protobuf %v: %+v", proto, got)
		}
	}
}

// TestFileGrows follows a file over a rotation.
func TestFileGrows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events")
	write := func(n uint64) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var e event.Event
		e.Reset(event.Lifecycle)
		e.ID, e.Source, e.BootID, e.Sequence, e.StreamSeq = fmt.Appendf(nil, "b-%d", n), []byte("/s"), []byte("b"), n, n
		if _, err := f.Write(append(e.AppendJSON(nil), '\n')); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	src := source.NewFile(path, true)
	c := consume.New(src, consume.Options{})
	defer c.End()
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	for n := uint64(1); n <= 6; n++ {
		d, err := c.Next(ctx)
		if err != nil || d.Sequence != n {
			t.Fatalf("%+v, %v, want %d", d, err, n)
		}
		if n == 3 {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
		}
		write(n + 1)
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(3))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, c := range []struct {
		name              string
		structured, proto bool
	}{{"binary", false, false}, {"structured", true, false}, {"protobuf", true, true}} {
		const n = 3000
		cfg := kafka.Config{Brokers: k.ListenAddrs(), Topic: c.name, Create: &kafka.Create{Partitions: 3, Replicas: 1}, Structured: c.structured,
			Proto: c.proto, InFlight: 4, AckTimeout: 10 * time.Second}
		fill(t, kafka.New(cfg, deps()), n)
		address := "kafka://" + strings.Join(k.ListenAddrs(), ",")
		if got := readAll(t, address, source.Options{Topics: []string{c.name}, All: true}, n); got != (consume.Counts{Events: n}) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if got := readAll(t, address, source.Options{Topics: []string{c.name}}, 0); got != (consume.Counts{}) {
			t.Errorf("%s, from now on: %+v", c.name, got)
		}
	}
	// What one member of a group has handled, the next does not get.
	address, group := "kafka://"+k.ListenAddrs()[0], source.Options{Topics: []string{"structured"}, Group: "g", All: true, Follow: true}
	if got := readAll(t, address, group, 3000); got.Events < 3000 {
		t.Errorf("a group: %+v", got)
	}
	cfg := kafka.Config{Brokers: k.ListenAddrs(), Topic: "structured", Structured: true, InFlight: 4, AckTimeout: 10 * time.Second}
	fill(t, kafka.New(cfg, deps()), 100)
	if got := readAll(t, address, group, 100); got.Events != 100 {
		t.Errorf("the group's next member: %+v", got)
	}
}

func TestNATS(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(waiting) {
		t.Fatal("the NATS server does not start")
	}
	url := srv.ClientURL()
	const n = 1000
	for _, batch := range []bool{false, true} {
		name := fmt.Sprint("BATCH-", batch)
		prefix := strings.ToLower(name)
		fill(t, nats.New(nats.Config{URLs: []string{url}, Stream: name, Prefix: prefix, Batch: batch, InFlight: 4, AckTimeout: 10 * time.Second,
			Create: &nats.Create{MaxBytes: 1 << 26, Replicas: 1, Duplicates: time.Minute}}, deps()), n)
		o := source.Options{Stream: name, Subject: prefix + ".>", All: true}
		if got := readAll(t, url, o, n); got != (consume.Counts{Events: n}) {
			t.Errorf("%s: %+v", name, got)
		}
		if o.All = false; readAll(t, url, o, n) != (consume.Counts{}) {
			t.Errorf("%s, from now on: there is something", name)
		}
		o.Group, o.All = "g", true
		if got := readAll(t, url, o, n); got != (consume.Counts{Events: n}) {
			t.Errorf("%s, shared: %+v", name, got)
		}
	}
	var away *stream.ConnectError
	if _, err := source.Open(t.Context(), "nats://127.0.0.1:1", source.Options{}); !errors.As(err, &away) {
		t.Errorf("a server that is not there: %v", err)
	}
}

// zeroLogin is how a reader logs in at a ZeroMQ sink: before its address, or with keys.
type zeroLogin struct {
	before string
	curve  *source.Curve
}

// zeroLogins returns how a sink is told whom to let in, and how such a reader does it, for each mechanism.
func zeroLogins(t *testing.T) map[string]struct {
	sink   zeromq.Config
	reader zeroLogin
} {
	var server, reader zmtp.Key
	_, _ = rand.Read(server[:])
	_, _ = rand.Read(reader[:])
	public := server.Public()
	return map[string]struct {
		sink   zeromq.Config
		reader zeroLogin
	}{
		"NULL":  {},
		"PLAIN": {zeromq.Config{User: "tap", PasswordFile: sink.WriteFile(t, "p@ss/word\n", 0o600)}, zeroLogin{before: "tap:p%40ss%2fword@"}},
		"CURVE": {
			zeromq.Config{Curve: &zeromq.Curve{SecretFile: sink.WriteFile(t, hex.EncodeToString(server[:]), 0o600), Clients: []zmtp.Key{reader.Public()}}},
			zeroLogin{curve: &source.Curve{Server: hex.EncodeToString(public[:]), Secret: hex.EncodeToString(reader[:])}},
		},
	}
}

func TestZeroMQ(t *testing.T) {
	t.Parallel()
	for name, login := range zeroLogins(t) {
		for _, pattern := range []zeromq.Pattern{zeromq.Pub, zeromq.Push, zeromq.Dealer} {
			t.Run(name+" "+string(pattern), func(t *testing.T) {
				t.Parallel()
				readZeroMQ(t, pattern, login.sink, login.reader)
			})
		}
	}
}

// TestZeroMQStrangers has readers without the right login, of whom none gets an event.
func TestZeroMQStrangers(t *testing.T) {
	t.Parallel()
	logins := zeroLogins(t)
	another := *logins["CURVE"].reader.curve
	another.Secret = strings.Repeat("01", 32)
	elsewhere := *logins["CURVE"].reader.curve
	elsewhere.Server = strings.Repeat("01", 32)
	for name, c := range map[string]struct {
		mechanism string
		reader    zeroLogin
		want      string
	}{
		"a wrong password":          {"PLAIN", zeroLogin{before: "tap:wrong@"}, "invalid user or password"},
		"no password":               {"PLAIN", zeroLogin{before: "tap@"}, "invalid user or password"},
		"no login":                  {"PLAIN", zeroLogin{}, `wants the mechanism "PLAIN", this side NULL`},
		"a login that nobody wants": {"NULL", logins["PLAIN"].reader, `wants the mechanism "NULL", this side PLAIN`},
		"another key":               {"CURVE", zeroLogin{curve: &another}, "its CURVE key is not among those that are let in"},
		"another server":            {"CURVE", zeroLogin{curve: &elsewhere}, "it was told another CURVE key"},
		"no keys":                   {"CURVE", zeroLogin{}, `wants the mechanism "CURVE", this side NULL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := logins[c.mechanism].sink
			cfg.Pattern, cfg.Bind, cfg.PeerBytes, cfg.MaxPeers = zeromq.Push, "127.0.0.1:0", 1<<20, 4
			cfg.Heartbeat, cfg.AckTimeout = 10*time.Second, 10*time.Second
			s := zeromq.New(cfg, deps())
			if err := s.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer s.Close(t.Context())
			src, err := source.Open(t.Context(), "zmq+pull://"+c.reader.before+s.Addr(), source.Options{Curve: c.reader.curve})
			if err != nil {
				t.Fatal(err)
			}
			err = src.Read(t.Context(), func(*consume.Message) error { t.Error("there is an event"); return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// readZeroMQ reads what a sink sends, to a reader that it lets in.
func readZeroMQ(t *testing.T, pattern zeromq.Pattern, cfg zeromq.Config, login zeroLogin) {
	address := freePort(t)
	cfg.Pattern, cfg.Bind, cfg.PeerBytes, cfg.MaxPeers, cfg.Heartbeat, cfg.AckTimeout = pattern, address, 1<<24, 4, 10*time.Second, 10*time.Second
	s := zeromq.New(cfg, deps())
	tap := sink.NewTap(t, 16<<20, s)
	scheme := map[zeromq.Pattern]string{zeromq.Pub: "zmq+sub", zeromq.Push: "zmq+pull", zeromq.Dealer: "zmq+dealer"}[pattern]
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	src, err := source.Open(ctx, scheme+"://"+login.before+address, source.Options{Curve: login.curve})
	if err != nil {
		t.Fatal(err)
	}
	// A PUB's events go by until the subscription is there: the first that comes begins the count.
	stop := make(chan struct{})
	pub := make(chan struct{})
	go func() {
		defer close(pub)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				tap.Observe(sink.Outcome("service", i))
			}
		}
	}()
	var c *consume.Consumer
	for { // until the sink listens
		c = consume.New(src, consume.Options{Patience: 1 << 20, Gap: func(g consume.Gap) { t.Errorf("%+v", g) }})
		d, err := c.Next(ctx)
		if err == nil {
			d.Done()
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	last := uint64(0)
	for range 500 {
		d, err := c.Next(ctx)
		if err != nil || d.StreamSeq <= last || last > 0 && d.StreamSeq != last+1 {
			t.Fatalf("%d after %d, %v", d.StreamSeq, last, err)
		}
		last = d.StreamSeq
		d.Done()
	}
	close(stop)
	<-pub
	c.End()
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestProxy reads a hub over HTTP.
func TestProxy(t *testing.T) {
	t.Parallel()
	h := hub.New(4 << 20)
	fill(t, h, 500)
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := hub.ParseQuery(r.URL.Query())
		if err != nil || r.URL.Path != "/events" {
			http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
			return
		}
		if err := h.ServeStream(r.Context(), w, func() error { return nil }, q); err != nil {
			t.Log(err)
		}
	}))
	defer admin.Close()
	if got := readAll(t, admin.URL, source.Options{}, 500); got != (consume.Counts{Events: 500}) {
		t.Errorf("%+v", got)
	}
	if got := readAll(t, admin.URL, source.Options{Follow: true, All: true}, 400); got.Events < 400 {
		t.Errorf("%+v", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"redis://x":           "must be nats://",
		"kafka://127.0.0.1":   "no topic",
		"zmq+sub://nowhere":   "missing port",
		"zmq+sub://:p@h:1":    "the address is no [USER:PASSWORD@]HOST:PORT",
		"zmq+sub://h:1/x":     "the address is no [USER:PASSWORD@]HOST:PORT",
		"zmq+sub://u:%zz@h:1": "the address is no [USER:PASSWORD@]HOST:PORT",
		"zmq+sub://" + strings.Repeat("u", 256) + "@h:1": "at most 255 bytes",
		"amqp://127.0.0.1:1":                             "connection refused",
	} {
		if _, err := source.Open(t.Context(), address, source.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	key := strings.Repeat("01", 32)
	for _, c := range []struct {
		address, want string
		curve         source.Curve
	}{
		{"zmq+sub://h:1", "the key of the server: a key of CURVE is 40", source.Curve{Secret: key}},
		{"zmq+sub://h:1", "the secret key: a key of CURVE is 40", source.Curve{Server: key, Secret: "hush"}},
		{"zmq+sub://u:p@h:1", "exclude each other", source.Curve{Server: key, Secret: key}},
	} {
		if _, err := source.Open(t.Context(), c.address, source.Options{Curve: &c.curve}); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %q", c.address, err, c.want)
		}
	}
}

// FuzzScan: whatever a file holds, it is read to its end or refused, without more memory than it has bytes.
func FuzzScan(f *testing.F) {
	var e event.Event
	e.Reset(event.Request)
	e.ID, e.Source = []byte("b-1"), []byte("/s")
	js, pb := e.AppendJSON(nil), e.AppendProto(nil)
	f.Add(append(js, '\n'))
	f.Add(append([]byte{byte(len(pb)), byte(len(pb) >> 7)}, pb...))
	f.Add([]byte("\n\n{}\n["))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		err := source.Scan(t.Context(), strings.NewReader(string(b)), func(m *consume.Message) error {
			size += len(m.Data)
			consume.Decode(m, func(consume.Event) {}, func(error) {})
			return nil
		})
		if size > len(b) {
			t.Errorf("%d bytes of %d, %v", size, len(b), err)
		}
	})
}
