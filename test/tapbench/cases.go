// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/hub"
	"github.com/meshtap/meshtap/eventtap/sink/file"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/eventtap/sink/nats"
	"github.com/meshtap/meshtap/eventtap/spool"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// benchCase is one thing that is measured.
type benchCase struct {
	name string
	tap  bool // its processor time is compared with that of none
	run  func(n int) error
	end  func()
}

// burst is how many events are observed before they are waited for; the rings hold them. It is so large because the tap lets
// the last ones of a burst wait for more, which is not what a rate is to tell of.
const burst = 8192

// open makes the cases, and starts the brokers that they need.
func open(dir, kafkaAt string) (cases []benchCase, end func(), err error) {
	end = func() {
		for _, c := range cases {
			if c.end != nil {
				c.end()
			}
		}
	}
	o := outcome()
	cases = append(cases, benchCase{name: "off", tap: true, run: func(n int) error {
		for range n {
			runtime.KeepAlive(o)
		}
		return nil
	}})
	add := func(name string, s eventtap.Sink, cfg eventtap.Config) {
		if err == nil {
			var c benchCase
			if c, err = tapped(name, s, cfg, o); err == nil {
				cases = append(cases, c)
			}
		}
	}
	plain := eventtap.Config{Memory: 32 << 20}
	add("hub", hub.New(1<<20), plain)
	add("file, JSON", file.New(file.Config{Path: filepath.Join(dir, "json"), MaxBytes: 64 << 20, MaxFiles: 2}), plain)
	add("file, protobuf", file.New(file.Config{Path: filepath.Join(dir, "proto"), MaxBytes: 64 << 20, MaxFiles: 2, Proto: true}), plain)
	spooled := plain
	spooled.Spool = eventtap.SpoolConfig{Dir: filepath.Join(dir, "spool"), MaxBytes: 256 << 20, Every: eventtap.DefaultCommit, Commit: spool.Interval}
	spooled.Modes[event.Request] = eventtap.Spool
	add("file, protobuf, through a spool", file.New(file.Config{Path: filepath.Join(dir, "spooled"), MaxBytes: 64 << 20, MaxFiles: 2, Proto: true}), spooled)
	if err != nil {
		return cases, end, err
	}
	natsAt, stopNATS, err := start("nats")
	if err != nil {
		return cases, end, err
	}
	cases = append(cases, benchCase{name: "", end: stopNATS})
	deps := eventtap.SinkDeps{Log: zap.NewNop(), Random: func() float64 { return 0.5 }}
	add("NATS, protobuf in batches", nats.New(nats.Config{URLs: []string{natsAt}, Stream: "BENCH", Prefix: "bench", Proto: true, Batch: true, InFlight: 4,
		AckTimeout: 30 * time.Second, Create: &nats.Create{MaxBytes: 1 << 28, Replicas: 1, Duplicates: time.Minute, InMemory: true}}, deps), plain)
	spooled.Spool.Dir = filepath.Join(dir, "spool-nats")
	add("NATS, through a spool", nats.New(nats.Config{URLs: []string{natsAt}, Stream: "SPOOLED", Prefix: "spooled", Proto: true, Batch: true, InFlight: 4,
		AckTimeout: 30 * time.Second, Create: &nats.Create{MaxBytes: 1 << 28, Replicas: 1, Duplicates: time.Minute, InMemory: true}}, deps), spooled)
	stopKafka := func() {}
	if kafkaAt == "" && err == nil {
		kafkaAt, stopKafka, err = start("kafka")
	}
	cases = append(cases, benchCase{name: "", end: stopKafka})
	add("Kafka, a record for each event", kafka.New(kafka.Config{Brokers: []string{kafkaAt}, Topic: "tapbench", Create: &kafka.Create{Partitions: 3, Replicas: 1},
		InFlight: 8, AckTimeout: 30 * time.Second}, deps), plain)
	var disk benchCase
	if err == nil {
		if disk, err = spoolCase(filepath.Join(dir, "log")); err == nil {
			cases = append(cases, disk)
		}
	}
	all := cases
	cases = nil
	for _, c := range all { // what only has to be ended is not measured
		if c.run != nil {
			cases = append(cases, c)
		}
	}
	return cases, func() {
		for i := range all {
			if c := all[len(all)-1-i]; c.end != nil {
				c.end()
			}
		}
	}, err
}

// outcome is a request as a mesh has many.
func outcome() *mesh.Outcome {
	return &mesh.Outcome{Start: time.Now().UnixNano(), Duration: 1e6, Listener: "0.0.0.0_80", VirtualHost: "payments:80", RouteName: "default",
		RouteTemplate: "/pay/{id}", Cluster: "outbound|80||payments.shop.svc.cluster.local", ConnectionID: 7, Method: []byte("GET"),
		Details: "via_upstream", RequestID: []byte("3f2b8c9a-1d2e-4f5a-8b7c-9d0e1f2a3b4c"), Status: 200, Attempts: 1}
}

// counted says when as many events as expected are acknowledged.
type counted struct {
	eventtap.Sink
	expect  atomic.Int64
	reached chan struct{}
}

// Send sends.
func (c *counted) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	n := int64(len(b.Events))
	c.Sink.Send(ctx, b, func(err error) {
		done(err)
		if err == nil && c.expect.Add(-n) == 0 {
			c.reached <- struct{}{}
		}
	})
}

// patience is how long a burst may take.
const patience = 2 * time.Minute

func tapped(name string, s eventtap.Sink, cfg eventtap.Config, o *mesh.Outcome) (benchCase, error) {
	c := &counted{Sink: s, reached: make(chan struct{}, 1)}
	tap, err := newTap(cfg, c)
	if err != nil {
		return benchCase{}, fmt.Errorf("%s: %w", name, err)
	}
	return benchCase{name, true, func(n int) error {
		for n > 0 {
			k := min(n, burst)
			c.expect.Store(int64(k))
			for range k {
				tap.Observe(o)
			}
			select {
			case <-c.reached:
			case <-time.After(patience):
				return fmt.Errorf("events are missing: %+v", tap.Account())
			}
			n -= k
		}
		return nil
	}, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = tap.Close(ctx)
	}}, nil
}

func newTap(cfg eventtap.Config, s eventtap.Sink) (*eventtap.Tap, error) {
	cfg.Sinks = []eventtap.SinkConfig{{Name: "bench", TypeURL: "bench"}}
	return eventtap.New(cfg, eventtap.Deps{Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Random: rand.Reader,
		Builders: map[string]eventtap.SinkBuilder{"bench": func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return s, nil }}})
}

// spoolCase appends batches of 512 records, each flushed to the disk.
func spoolCase(dir string) (benchCase, error) {
	l, _, err := spool.Open(spool.Config{Dir: dir, Commit: spool.Batch, MaxBytes: 256 << 20})
	if err != nil {
		return benchCase{}, err
	}
	const batch = 512
	rec := make([][]byte, batch)
	for i := range rec {
		rec[i] = bytes.Repeat([]byte("e"), 300)
	}
	return benchCase{name: "spool, batches of 512, fsync", run: func(n int) error {
		for ; n > 0; n -= batch {
			first, _, err := l.Append(rec[:min(n, batch)])
			if err != nil {
				return err
			}
			l.Ack(first, nil)
		}
		return nil
	}, end: func() { l.Close() }}, nil
}

// handOver measures Observe alone, where there is room.
func handOver() (Row, error) {
	s := hub.New(1 << 20)
	tap, err := newTap(eventtap.Config{Memory: 64 << 20}, s)
	if err != nil {
		return Row{}, err
	}
	defer tap.Close(context.Background())
	o := outcome()
	const calls = 4096 // the rings have room for them
	var times []float64
	var before, after runtime.MemStats
	var allocs float64
	for range 200 {
		runtime.ReadMemStats(&before)
		start := time.Now()
		for range calls {
			tap.Observe(o)
		}
		times = append(times, float64(time.Since(start))/calls)
		runtime.ReadMemStats(&after)
		allocs = float64(after.Mallocs-before.Mallocs) / calls // the batcher's are in it
		for tap.Account().Pending > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if a := tap.Account(); a.Dropped != [eventtap.NumReasons]uint64{} {
		return Row{}, fmt.Errorf("the hand-over dropped events: %+v", a)
	}
	return Row{Name: "hand-over (Observe)", Call: median(times), Allocs: &allocs}, nil
}

// start runs this program as a broker, and returns its address.
func start(name string) (address string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, "-broker", name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		in.Close()
		_ = cmd.Wait()
	}
	address, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the broker %s does not start: %w", name, err)
	}
	return strings.TrimSpace(address), stop, nil
}

// serve is a broker until the standard input ends.
func serve(name string) error {
	switch name {
	case "kafka":
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Println(c.ListenAddrs()[0])
	case "nats":
		dir, err := os.MkdirTemp("", "tapbench-nats")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
		if err != nil {
			return err
		}
		s.Start()
		defer s.Shutdown()
		if !s.ReadyForConnections(time.Minute) {
			return errors.New("the NATS server does not start")
		}
		fmt.Println(s.ClientURL())
	default:
		return fmt.Errorf("there is no broker %q", name)
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
