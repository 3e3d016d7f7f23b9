// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
)

// planted are what a client may send and nobody else must see, each in a form that is found wherever it turns up.
var planted = []string{"jane.doe@example.com", "4111111111111111", "eyJhbGciOiJIUzI1NiJ9", "s3cr3t", "203.0.113.77", "51234"}

// plantedHeaders has them in every header, whatever the name.
type plantedHeaders struct{}

func (plantedHeaders) RequestHeader(string) []byte   { return []byte("jane.doe@example.com s3cr3t") }
func (plantedHeaders) ResponseHeader(string) []byte  { return []byte("eyJhbGciOiJIUzI1NiJ9") }
func (plantedHeaders) ResponseTrailer(string) []byte { return []byte("4111111111111111") }

// plant puts them into every place of a request that the client writes.
func plant(o *mesh.Outcome) {
	o.Path = []byte("/users/jane.doe@example.com/4111111111111111?token=s3cr3t")
	o.UpstreamPath = o.Path
	o.Authority = []byte("s3cr3t.example.com")
	o.ServerName = "s3cr3t.example.com"
	o.Method, o.Scheme = []byte("S3CR3T-s3cr3t"), []byte("s3cr3t")
	o.RequestID = []byte("jane.doe@example.com")
	o.Headers = plantedHeaders{}
	o.Remote = netip.MustParseAddrPort("203.0.113.77:51234")
	o.DirectRemote = o.Remote
}

// TestNothingPersonal observes requests and connections with secrets and personal data in every place, with every kind of
// event and every option of what is told, and finds none of it on any sink, on the disk, in the log or in the counters
// (F88).
func TestNothingPersonal(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"defaults":          func(*Config) {},
		"attempts":          func(c *Config) { c.Modes[event.Attempt] = Spool },
		"the network":       func(c *Config) { c.ClientNetwork = true },
		"by route":          func(c *Config) { c.Key.By = KeyByRoute },
		"by trace":          func(c *Config) { c.Key.By = KeyByTrace },
		"sampled":           func(c *Config) { c.Policy.OneIn = 2 },
		"fields are listed": func(c *Config) { c.Policy.Mask = Mask{Limited: true, Trace: true, Tries: true, Texts: math.MaxUint64} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := spooled(t.TempDir())
			change(&cfg)
			core, logs := observer.New(zap.DebugLevel)
			deps := testDeps()
			deps.Log = zap.New(core)
			js, pb := newMemSink(Caps{Encoding: JSON, InFlight: 1, Keyed: true}), newMemSink(Caps{Encoding: Proto, InFlight: 1, Keyed: true})
			for _, s := range []*memSink{js, pb} { // half of it stays on the disk
				s.behave = func(b *Batch, done func(error)) bool {
					if b.Events[0].Sequence > 500 {
						done(errDown)
						return false
					}
					done(nil)
					return true
				}
			}
			cfg.Sinks = []SinkConfig{sinkOf("json", js), sinkOf("proto", pb)}
			tap, err := New(cfg, deps)
			if err != nil {
				t.Fatal(err)
			}
			for i := range outcomes {
				for n := range 1000 / len(outcomes) {
					o := sampleOutcome()
					outcomes[i].change(o)
					plant(o)
					o.GRPC = n%2 == 0 && o.Kind == mesh.OutcomeHTTP
					tap.Observe(o)
				}
				paceDisk(t, tap)
			}
			a := endTap(t, tap, 200*time.Millisecond)
			if len(js.ids) == 0 || len(pb.ids) == 0 || a.Sinks[0].Pending == 0 {
				t.Fatalf("there is nothing to look at: %+v", a)
			}
			outputs := map[string][]byte{"the log": fmt.Append(nil, logs.All()), "the account": fmt.Appendf(nil, "%+v", a)}
			for i, s := range []*memSink{js, pb} {
				outputs[fmt.Sprint("sink ", i)] = append(bytes.Join(s.bodies, nil), strings.Join(s.ids, " ")...)
			}
			readAll(t, cfg.Spool.Dir, outputs)
			for where, text := range outputs {
				for _, p := range planted {
					if i := bytes.Index(text, []byte(p)); i >= 0 {
						t.Errorf("%s holds %q: %q", where, p, text[max(i-200, 0):min(i+60, len(text))])
					}
				}
			}
		})
	}
}

func readAll(t *testing.T, dir string, into map[string][]byte) {
	t.Helper()
	size := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		size += len(b)
		into[path] = b
		return err
	})
	if err != nil || size < 10000 {
		t.Fatalf("%d bytes on the disk, %v", size, err)
	}
}

// TestSelection: a route's policy comes before the selections, the first selection that matches before the default.
func TestSelection(t *testing.T) {
	t.Parallel()
	off, some := &Policy{Off: true}, &Policy{OneIn: 7}
	s := newSettings(Config{Policy: Policy{OneIn: 9}, Selections: []Selection{
		{Listener: "in", Policy: off}, {Cluster: "orders", Route: "pay", Policy: some}, {Cluster: "orders", Policy: off},
	}}, false)
	for name, c := range map[string]struct {
		o    mesh.Outcome
		want *Policy
	}{
		"the route says":          {mesh.Outcome{Policy: some, Listener: "in"}, some},
		"something else's policy": {mesh.Outcome{Policy: 3, Listener: "in"}, off},
		"the listener":            {mesh.Outcome{Listener: "in", Cluster: "orders", RouteName: "pay"}, off},
		"a cluster and a route":   {mesh.Outcome{Cluster: "orders", RouteName: "pay"}, some},
		"the cluster alone":       {mesh.Outcome{Cluster: "orders"}, off},
		"nothing but the default": {mesh.Outcome{Cluster: "x"}, &s.cfg.Policy},
	} {
		if got := s.selects(&c.o); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestSamplingAgrees: two proxies keep the same requests, a higher rate keeps a part of what a lower one keeps, the share
// is what the rate says, and what matters is always kept.
func TestSamplingAgrees(t *testing.T) {
	t.Parallel()
	const n = 60000
	for name, ids := range map[string]func(int) (trace, id []byte){
		"by trace":   func(i int) ([]byte, []byte) { return fmt.Appendf(nil, "00-%032x-b7ad6b7169203331-01", i+1), nil },
		"by request": func(i int) ([]byte, []byte) { return nil, fmt.Appendf(nil, "3f2b8c9a-1d2e-4f5a-8b7c-%012x", i) },
		"by itself":  func(int) ([]byte, []byte) { return nil, nil },
	} {
		kept := map[uint32]int{}
		for i := range n {
			o := outcomeOf("x", i)
			trace, id := ids(i)
			o.RequestID = id
			last := true
			for _, rate := range []uint32{1, 3, 10, 100} {
				p := &Policy{OneIn: rate}
				got := p.rate(o, trace, false)
				if got != 0 && got != rate || got != 0 && !last {
					t.Fatalf("%s: with 1 in %d it is %d", name, rate, got)
				}
				if last = got != 0; last {
					kept[rate]++
				}
				if p.rate(o, trace, true) != 1 {
					t.Fatalf("%s: what matters was sampled", name)
				}
			}
		}
		for rate, k := range kept {
			if off := float64(k)*float64(rate)/n - 1; math.Abs(off) > 0.12 {
				t.Errorf("%s: with 1 in %d, %d of %d are kept", name, rate, k, n)
			}
		}
	}
	for name, change := range map[string]func(*mesh.Outcome){
		"a failure":      func(o *mesh.Outcome) { o.Failure = mesh.UpstreamReset },
		"an error":       func(o *mesh.Outcome) { o.Status = 500 },
		"slow":           func(o *mesh.Outcome) { o.Duration = int64(300 * time.Millisecond) },
		"repeated":       func(o *mesh.Outcome) { o.Attempts = 2 },
		"a fallback":     func(o *mesh.Outcome) { o.Fallback = true },
		"a probe":        func(o *mesh.Outcome) { o.Circuit = mesh.CircuitHalfOpen },
		"nothing":        func(*mesh.Outcome) {},
		"a client error": func(o *mesh.Outcome) { o.Status = 404 },
	} {
		o := sampleOutcome()
		change(o)
		p := &Policy{Slow: int64(250 * time.Millisecond)}
		if got, want := p.important(o), name != "nothing" && name != "a client error"; got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestPolicies runs policies through a whole tap: what is left out is counted, what is kept says for how many it stands,
// and what is told is what the policy says.
func TestPolicies(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	texts := func(names ...string) (m uint64) {
		for _, n := range names {
			f, ok := event.FieldOf(n)
			if !ok || !f.IsText {
				t.Fatal(n)
			}
			m |= 1 << f.Text
		}
		return m
	}
	duration, _ := event.FieldOf("meshtap.duration_ns")
	tap := newTap(t, Config{}, s)
	cfg := with(tap, sinkOf("a", s))
	cfg.Selections = []Selection{
		{Cluster: "off", Policy: &Policy{Off: true}},
		{Cluster: "some", Policy: &Policy{OneIn: 4}},
		{Cluster: "short", Policy: &Policy{Mask: Mask{Limited: true, Texts: texts("http.route"), Numbers: 1 << duration.Number}}},
		{Cluster: "redacted", Policy: &Policy{Mask: Mask{Redacted: texts("meshtap.request_id", "network.peer.address")}}},
	}
	if err := tap.Reconfigure(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	const n = 4000
	for i := range n {
		o := outcomeOf("some", i)
		o.RequestID = fmt.Appendf(nil, "%d", i)
		tap.Observe(o)
		if i%500 == 0 {
			pace(t, tap)
		}
	}
	for range 3 {
		tap.Observe(outcomeOf("off", 1))
	}
	tap.Observe(outcomeOf("short", 1))
	tap.Observe(outcomeOf("redacted", 1))
	tap.Observe(outcomeOf("redacted", 2))
	a := endTap(t, tap, 5*time.Second)
	var weight uint32
	var redacted []string
	for _, e := range s.events(t) {
		switch string(e.Subject) {
		case "some":
			if e.SampledRate != 4 {
				t.Fatalf("%s", e.AppendJSON(nil))
			}
			weight += e.SampledRate
		case "short":
			if js := string(e.AppendJSON(nil)); !strings.HasSuffix(js, `"data":{"http.route":"/api/v1/payments/","meshtap.duration_ns":1234567}}`) {
				t.Errorf("%s", js)
			}
		case "redacted":
			redacted = append(redacted, string(e.Texts[event.RequestID]), string(e.Texts[event.PeerAddress]))
		default:
			t.Errorf("%s", e.AppendJSON(nil))
		}
	}
	if math.Abs(float64(weight)/n-1) > 0.1 || a.Produced != uint64(weight/4)+3 {
		t.Errorf("the events stand for %d of %d; %+v", weight, n, a)
	}
	form := regexp.MustCompile(`^\[redacted id=[0-9a-f]{8}\]$`)
	if len(redacted) != 4 || !form.MatchString(redacted[0]) || redacted[0] != redacted[2] || redacted[0] == redacted[1] {
		t.Errorf("%q", redacted)
	}
}

// TestPartitionKeys has each kind of key, and requests that do not have it.
func TestPartitionKeys(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, c := range map[string]struct {
		key        Key
		want, none string
	}{
		"cluster": {Key{}, "outbound|80||payments.shop", "web"},
		"header":  {Key{By: KeyByHeader, Header: "x-tenant"}, strings.Repeat("t", maxPartKey), "web"},
		"route":   {Key{By: KeyByRoute}, "/api/v1/payments/", "web"},
		"source":  {Key{By: KeyBySource}, "/meshtap/prod/-/-/proxy-1", "/meshtap/prod/-/-/proxy-1"},
		"trace":   {Key{By: KeyByTrace}, trace[3:35], "web"},
	} {
		s := newMemSink(Caps{Encoding: Proto, InFlight: 1, Keyed: true})
		tap := newTap(t, Config{Key: c.key}, s)
		o := sampleOutcome()
		o.Headers = headers{"x-tenant": strings.Repeat("t", 100), "traceparent": trace}
		tap.Observe(o)
		tap.Observe(&mesh.Outcome{Listener: "web", Headers: headers{}})
		endTap(t, tap, 5*time.Second)
		events := s.events(t)
		if len(events) != 2 {
			t.Fatalf("%s: %d events", name, len(events))
		}
		got := map[string]bool{string(events[0].PartitionKey): true, string(events[1].PartitionKey): true}
		if !got[c.want] || !got[c.none] {
			t.Errorf("%s: %v, want %q and %q", name, got, c.want, c.none)
		}
	}
}

// TestOrderPerHeader: with a key of its own, each key's events keep their order, whatever the cluster.
func TestOrderPerHeader(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: Proto, InFlight: 4})
	tap := newTap(t, Config{Key: Key{By: KeyByHeader, Header: "x-tenant"}}, s)
	for n := range 6000 {
		o := outcomeOf(fmt.Sprint("cluster-", n%5), n)
		o.Headers = headers{"x-tenant": fmt.Sprint("tenant-", n%7)}
		tap.Observe(o)
		if n%500 == 0 {
			pace(t, tap)
		}
	}
	endTap(t, tap, 5*time.Second)
	last := map[string]int64{}
	events := s.events(t)
	for _, e := range events {
		key, n := string(e.PartitionKey), e.Numbers[event.ConnectionID]
		if before, ok := last[key]; ok && n != before+7 {
			t.Fatalf("%s: %d after %d", key, n, before)
		}
		last[key] = n
	}
	if len(events) != 6000 || len(last) != 7 {
		t.Errorf("%d events of %d keys", len(events), len(last))
	}
}
