// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/meshtap/meshtap/internal/zmtp"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// buses starts the buses that a configuration names, and replaces where they are.
func (r *Rig) buses(text string) string {
	r.T.Helper()
	at := func(stand string, start func() string) {
		if strings.Contains(text, stand) {
			text = strings.ReplaceAll(text, stand, start())
		}
	}
	at(kafkaBroker, func() string {
		r.Kafka = origin.StartKafka(r.T)
		return r.Kafka
	})
	at(rabbitServer, func() string {
		if r.RabbitMQ == "" {
			r.RabbitMQ = fmt.Sprintf("127.0.0.1:%d", nobody(r.T))
		}
		return r.RabbitMQ
	})
	at(zeroMQ, func() string {
		r.ZeroMQ = fmt.Sprintf("127.0.0.1:%d", free(r.T))
		return r.ZeroMQ
	})
	at(collector, func() string {
		if r.Collector == nil {
			r.Collector = origin.StartCollector(r.T)
		}
		return r.Collector.Addr()
	})
	at(webhook, func() string {
		r.Webhook = startWebhook(r.T, r.Files)
		return r.Webhook.addr
	})
	return text
}

// free returns a port that is free now.
func free(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Webhook is a server that takes batches of events.
type Webhook struct {
	addr   string
	mu     sync.Mutex
	events []map[string]any
	signed int // requests with a signature
}

// startWebhook starts a server, and writes the key by which the sink signs.
func startWebhook(t testing.TB, files string) *Webhook {
	t.Helper()
	key := "whsec_" + strings.Repeat("c2Vj", 8) + "\n"
	if err := os.WriteFile(filepath.Join(files, "webhook.key"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Webhook{addr: l.Addr().String()}
	srv := &http.Server{Handler: w, ReadHeaderTimeout: sidecar.Hang}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); served.Wait() })
	return w
}

// ServeHTTP takes a batch.
func (w *Webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var events []map[string]any
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil || r.Header.Get("Content-Type") != "application/cloudevents-batch+json" {
		http.Error(rw, "not a batch of events", http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, events...)
	if strings.HasPrefix(r.Header.Get("webhook-signature"), "v1,") {
		w.signed++
	}
}

func tapWebhook(t *testing.T, r *Rig) {
	want := r.Delivered("webhook")
	r.Webhook.mu.Lock()
	defer r.Webhook.mu.Unlock()
	if got := methods(t, r.Webhook.events); !slices.Equal(got, want) || r.Webhook.signed == 0 {
		t.Errorf("the webhook has heard of %q in %d signed requests, want %q", got, r.Webhook.signed, want)
	}
}

// tapZeroMQ subscribes to requests before they are made.
func tapZeroMQ(t *testing.T, r *Rig) {
	c, err := net.DialTimeout("tcp", r.ZeroMQ, sidecar.Hang)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(sidecar.Hang)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := zmtp.Handshake(c, zmtp.Config{SocketType: "SUB", Peers: []string{"XPUB"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(zmtp.AppendCommand(nil, zmtp.Subscribe, []byte("meshtap.events.outcome."))); err != nil {
		t.Fatal(err)
	}
	heard := map[string]bool{}
	for i, method := range []string{"GET", "POST", "PUT"} {
		r.Do(Request{Name: method, Method: method})
		for !heard[method] {
			// The proxy does not say when it has the subscription, so the event of the first request may be missed.
			e := r.nextZeroMQ(c, i == 0)
			if e == nil {
				r.Do(Request{Name: method, Method: method})
				continue
			}
			for _, m := range methods(t, []map[string]any{e}) {
				heard[m] = true
			}
		}
	}
}

// nextZeroMQ returns the next event, or nil where none comes soon and none need to.
func (r *Rig) nextZeroMQ(c net.Conn, mayMiss bool) map[string]any {
	r.T.Helper()
	end := sidecar.Hang
	if mayMiss {
		end = time.Second
	}
	if err := c.SetDeadline(time.Now().Add(end)); err != nil {
		r.T.Fatal(err)
	}
	for parts := 0; ; {
		f, err := zmtp.ReadFrame(c, nil, 1<<16)
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() && mayMiss && parts == 0 {
			return nil
		}
		if err != nil {
			r.T.Fatal(err)
		}
		if f.Command {
			continue // a PING: the connection does not live for so long that it needs an answer
		}
		if parts++; f.More {
			continue
		}
		var e map[string]any
		if err := json.Unmarshal(f.Body, &e); err != nil || parts != 3 {
			r.T.Fatalf("%d parts, %q: %v", parts, f.Body, err)
		}
		return e
	}
}

// Delivered sends some requests and waits until a sink has delivered all events. It returns the requests' methods.
func (r *Rig) Delivered(sink string) []string {
	want := []string{"GET", "POST", "PUT"}
	r.told(want)
	r.Admin.UntilStats(func(s sidecar.Stats) bool {
		return s["meshtap.tap.sink."+sink+".acked"] == s["meshtap.tap.produced"]
	})
	return want
}

func tapKafka(t *testing.T, r *Rig) {
	want := r.Delivered("kafka")
	ctx, cancel := context.WithTimeout(t.Context(), sidecar.Hang)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(r.Kafka), kgo.ConsumeTopics("meshtap.events"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []string
	for len(got) < len(want) {
		fs := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("the topic tells of %q, want %q", got, want)
		}
		for _, rec := range fs.Records() {
			e := map[string]any{}
			for _, h := range rec.Headers {
				if name, ok := strings.CutPrefix(h.Key, "ce_"); ok {
					e[name] = string(h.Value)
				}
			}
			var data any
			if err := json.Unmarshal(rec.Value, &data); err != nil {
				t.Fatal(err)
			}
			e["data"] = data
			got = append(got, methods(t, []map[string]any{e})...)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) { // the topic has partitions
		t.Errorf("the topic tells of %q, want %q", got, want)
	}
}
