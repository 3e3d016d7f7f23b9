// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// life is one run of a proxy that is killed.
type life struct {
	killed time.Time

	mu       sync.Mutex
	answered []time.Time // guarded by mu: when requests were answered
}

func (l *life) answer(status int, _ http.Header, body []byte) error {
	if status != http.StatusOK {
		return fmt.Errorf("status %d: %.200s", status, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = append(l.answered, time.Now())
	return nil
}

// TestProxyKilled kills the proxy with SIGKILL under requests, over and over on the same spool, and then holds what came to a
// file and to a bus, which is away in every other run, against the answers that clients got: nothing broken came, nothing
// twice but a batch for each kill, nothing in another order, and of each run nothing is missing but its end (F82).
func TestProxyKilled(t *testing.T) {
	t.Parallel()
	r := examples.NewRig(t)
	file := filepath.Join(r.Files, "events.jsonl")
	text := withSpool(t, r.Read("tap-nats.yaml"), filepath.Join(r.Files, "spool"), file)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	rounds := 5
	if soak() {
		rounds = 200
	}
	var lives []*life
	for n := range rounds {
		if n%2 == 1 {
			r.Bus.Kill()
		}
		lives = append(lives, liveOnce(t, r, text, n, random.Int64N(500)))
		if n%2 == 1 {
			r.Bus.Revive()
		}
	}
	r.Start(text, "", "--service-node", fmt.Sprint("life-", rounds))
	r.Do(examples.Request{Name: "last"})
	r.Admin.UntilStats(func(s sidecar.Stats) bool {
		return s["meshtap.tap.produced"] == 1 && s.Sum("meshtap.tap.sink.", ".pending") == 0
	})
	r.Proxy.Signal(os.Interrupt)
	r.Proxy.Wait()
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("file", func(t *testing.T) {
		checkLives(t, lives, bytes.Split(bytes.TrimSuffix(lines, []byte("\n")), []byte("\n")))
	})
	t.Run("nats", func(t *testing.T) { checkLives(t, lives, messages(t, r.Bus.Connect())) })
}

// withSpool has the events of requests, and no others, go by way of a folder on the disk to a bus and to a file.
func withSpool(t *testing.T, text, dir, file string) string {
	t.Helper()
	for old, now := range map[string]string{
		// The memory holds what comes while a slow disk is written to.
		"memory_bytes: 8388608\n": "memory_bytes: 67108864\n    events:\n    - {class: REQUEST, mode: SPOOL}\n" +
			off("CONNECTION", "CIRCUIT", "EJECTION", "HEALTH", "CONFIG", "LIFECYCLE") +
			"    spool: {directory: " + dir + ", max_bytes: 268435456, commit: INTERVAL, commit_interval: 0.05s}\n",
		"    sinks:\n": "    sinks:\n    - name: file\n      typed_config: {\"@type\": type.googleapis.com/meshtap.tap.v1.FileSink, path: " +
			file + ", max_bytes: 1073741824, max_files: 2}\n",
		"max_age: 86400s}": "max_age: 86400s, duplicate_window: 3600s}",
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("tap-nats.yaml does not have %q any more", old)
		}
		text = strings.Replace(text, old, now, 1)
	}
	return text
}

// liveOnce runs the proxy until so many requests more than one were made, and kills it.
func liveOnce(t *testing.T, r *examples.Rig, text string, n int, after int64) *life {
	t.Helper()
	r.Start(text, "", "--service-node", fmt.Sprint("life-", n))
	l := &life{}
	requests := load.Start(t, load.Options{Workers: 8, Rate: 1000, Addr: func() string { return r.Addr("") }, Check: l.answer})
	requests.After(1 + after)
	l.killed = time.Now()
	r.Proxy.Kill()
	requests.Stop() // of its requests those fail that the kill met
	slices.SortFunc(l.answered, time.Time.Compare)
	return l
}

// messages are what the stream of tap-nats.yaml holds.
func messages(t *testing.T, js jetstream.JetStream) (out [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sidecar.Hang)
	defer cancel()
	c, err := js.OrderedConsumer(ctx, "meshtap", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Stop()
	for range info.NumPending {
		m, err := in.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m.Data())
	}
	return out
}

// came is what a stream holds of one run.
type came struct{ events, last, told uint64 }

func checkLives(t *testing.T, lives []*life, stream [][]byte) {
	const batch = 64
	all := make([]came, len(lives)+1)
	boots, seen := map[string]int{}, map[string]bool{}
	repeats, newest := 0, 0
	for _, b := range stream {
		var e event.Event
		if err := e.DecodeJSON(b); err != nil {
			t.Errorf("a broken event: %v\n%s", err, b)
			continue
		}
		if seen[string(e.ID)] {
			repeats++
			continue
		}
		seen[string(e.ID)] = true
		if e.Kind == event.Lost {
			all[boots[string(e.BootID)]].told += e.Uint(event.Count)
			continue
		}
		var n int
		if _, node, ok := strings.Cut(string(e.Source), "life-"); !ok {
			t.Fatalf("an event of nobody: %s", b)
		} else if _, err := fmt.Sscan(node, &n); err != nil || n >= len(all) {
			t.Fatalf("an event of another proxy: %s", b)
		}
		boots[string(e.BootID)] = n
		c := &all[n]
		if n < newest || e.StreamSeq <= c.last {
			t.Errorf("run %d number %d stands behind run %d, number %d", n, e.StreamSeq, newest, c.last)
		}
		newest, c.last = n, e.StreamSeq
		c.events++
	}
	var total, lost, most uint64
	var window time.Duration
	for n, l := range lives {
		c, answered := all[n], uint64(len(l.answered))
		total += c.events
		if c.events+c.told != c.last {
			t.Errorf("run %d: of %d numbers %d came and %d are told", n, c.last, c.events, c.told)
		}
		if gone := answered - min(answered, c.last); gone > 0 {
			lost += gone
			most = max(most, gone)
			window = max(window, l.killed.Sub(l.answered[c.last]))
		}
	}
	t.Logf("figure: %d kills; %d events came, %d of them again; %d answered requests have none, at most %d of a kill, answered at most %v before it",
		len(lives), total, repeats, lost, most, window.Round(100*time.Microsecond))
	if all[len(lives)].events != 1 || repeats > batch*len(lives) {
		t.Errorf("%d events after all kills, %d came again in %d kills", all[len(lives)].events, repeats, len(lives))
	}
	if total <= lost {
		t.Errorf("%d events came and %d are missing", total, lost)
	}
}
