// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// moved lists what was counted, without the prefix, counters that are 0 and histograms without values.
func moved(reg *stats.Registry, prefix string) string {
	var out []string
	reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		name, ok := strings.CutPrefix(string(m.AppendName(nil)), prefix)
		switch {
		case !ok:
		case m.Kind == stats.Text && m.Text != "":
			out = append(out, fmt.Sprintf("%s=%q", name, m.Text))
		case m.Kind == stats.Histogram && m.Used:
			out = append(out, fmt.Sprintf("%s=#%d", name, m.Snapshot(false).Count))
		case m.Value != 0:
			out = append(out, fmt.Sprintf("%s=%d", name, m.Value))
		}
		return true
	})
	return strings.Join(out, " ")
}

func TestObserveHTTP(t *testing.T) {
	t.Parallel()
	const served = "downstream_rq_http1_total=1 downstream_rq_time=#1 downstream_rq_total=1"
	const answered5xx = "downstream_rq_5xx=1 downstream_rq_completed=1 "
	code := func(c int) string {
		s := ""
		for _, p := range []string{"external.", ""} {
			s += fmt.Sprintf("%[1]supstream_rq_%[2]d=1 %[1]supstream_rq_%[3]dxx=1 %[1]supstream_rq_completed=1 ", p, c, c/100)
		}
		return s
	}
	for _, tc := range []struct {
		name          string
		o             mesh.Outcome
		noCluster     bool
		http, cluster string
	}{
		{"answered", mesh.Outcome{Status: 200, UpstreamTook: 5}, false,
			"downstream_rq_2xx=1 downstream_rq_completed=1 " + served, code(200) + "upstream_rq_time=#1"},
		{"no route", mesh.Outcome{Status: 404, UpstreamTook: -1, Failure: mesh.NoRoute}, true,
			"downstream_rq_4xx=1 downstream_rq_completed=1 " + served + " no_route=1", ""},
		{"no cluster", mesh.Outcome{Status: 503, UpstreamTook: -1, Failure: mesh.NoCluster}, true,
			answered5xx + served + " no_cluster=1", ""},
		{"client left", mesh.Outcome{UpstreamTook: -1, Failure: mesh.DownstreamClosed}, false,
			"downstream_rq_http1_total=1 downstream_rq_rx_reset=1 downstream_rq_time=#1 downstream_rq_total=1", ""},
		{"idle", mesh.Outcome{Status: 504, UpstreamTook: -1, Failure: mesh.StreamIdleTimeout}, true,
			answered5xx + "downstream_rq_http1_total=1 downstream_rq_idle_timeout=1 downstream_rq_time=#1 downstream_rq_total=1", ""},
		{"request timeout", mesh.Outcome{Status: 408, UpstreamTook: -1, Failure: mesh.RequestReadTimeout}, true,
			"downstream_rq_4xx=1 downstream_rq_completed=1 downstream_rq_http1_total=1 downstream_rq_time=#1 downstream_rq_timeout=1 downstream_rq_total=1", ""},
		{"header timeout", mesh.Outcome{Status: 408, UpstreamTook: -1, Failure: mesh.RequestReadTimeout, Details: "request_header_timeout"}, true,
			"downstream_rq_4xx=1 downstream_rq_completed=1 downstream_rq_header_timeout=1 " + served, ""},
		{"overload", mesh.Outcome{Status: 503, UpstreamTook: -1, Failure: mesh.Overloaded}, true,
			"downstream_rq_5xx=1 downstream_rq_completed=1 downstream_rq_http1_total=1 downstream_rq_overload_close=1 downstream_rq_time=#1 downstream_rq_total=1", ""},
		{"max duration here", mesh.Outcome{Status: 504, UpstreamTook: -1, Failure: mesh.MaxDuration, Side: mesh.SideDownstream}, false,
			answered5xx + "downstream_rq_http1_total=1 downstream_rq_max_duration_reached=1 downstream_rq_time=#1 downstream_rq_total=1", code(504)},
		{"max duration of the cluster", mesh.Outcome{Status: 504, UpstreamTook: -1, Failure: mesh.MaxDuration, Side: mesh.SideUpstream}, false,
			answered5xx + served, code(504) + "upstream_rq_max_duration_reached=1"},
		{"timeout", mesh.Outcome{Status: 504, UpstreamTook: -1, Failure: mesh.RequestTimeout}, false,
			answered5xx + served, code(504) + "upstream_rq_timeout=1"},
		{"overflow", mesh.Outcome{Status: 503, UpstreamTook: -1, Failure: mesh.Overflow}, false,
			answered5xx + served, code(503) + "upstream_rq_pending_overflow=1"},
		{"no host", mesh.Outcome{Status: 503, UpstreamTook: -1, Failure: mesh.NoHealthyHost}, false,
			answered5xx + served, strings.Replace(code(503), " upstream_rq_503", " upstream_cx_none_healthy=1 upstream_rq_503", 1)},
		{"repeated, then answered", mesh.Outcome{Status: 200, UpstreamTook: 1, Attempts: 4, Tries: []mesh.Try{
			{Status: 503}, {Failure: mesh.PerTryTimeout}, {Failure: mesh.UpstreamReset}}}, false,
			"downstream_rq_2xx=1 downstream_rq_completed=1 " + served,
			"external.upstream_rq_200=1 external.upstream_rq_2xx=1 external.upstream_rq_completed=1 " +
				"retry.upstream_rq_503=1 retry.upstream_rq_5xx=1 retry.upstream_rq_completed=1 " +
				"upstream_rq_200=1 upstream_rq_2xx=1 upstream_rq_completed=1 upstream_rq_per_try_timeout=1 " +
				"upstream_rq_retry=3 upstream_rq_retry_backoff_exponential=3 upstream_rq_retry_success=1 upstream_rq_rx_reset=1 upstream_rq_time=#1"},
		{"repeated in vain", mesh.Outcome{Status: 503, UpstreamTook: 1, Attempts: 2, Flags: mesh.FlagURX, Tries: []mesh.Try{{Status: 503}}}, false,
			answered5xx + served,
			"external.upstream_rq_503=1 external.upstream_rq_5xx=1 external.upstream_rq_completed=1 " +
				"retry.upstream_rq_503=1 retry.upstream_rq_5xx=1 retry.upstream_rq_completed=1 " +
				"upstream_rq_503=1 upstream_rq_5xx=1 upstream_rq_completed=1 " +
				"upstream_rq_retry=1 upstream_rq_retry_backoff_exponential=1 upstream_rq_retry_limit_exceeded=1 upstream_rq_time=#1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := stats.NewRegistry(stats.Options{})
			h, c := metrics.NewHTTP(reg, "p", "0.0.0.0:80"), metrics.NewCluster(reg, "x")
			if tc.noCluster {
				c = nil
			}
			h.Begin(tc.o.Shard, mesh.HTTP11)
			metrics.ObserveHTTP(h, c, &tc.o)
			if got := moved(reg, "http.p."); got != tc.http {
				t.Errorf("http:\n%s\nwant\n%s", got, tc.http)
			}
			if got, want := moved(reg, "cluster.x."), strings.TrimSpace(tc.cluster); got != want {
				t.Errorf("cluster:\n%s\nwant\n%s", got, want)
			}
			if got, want := moved(reg, "listener.0.0.0.0_80.http.p."), ""; tc.o.Status == 0 && got != want ||
				tc.o.Status != 0 && !strings.HasSuffix(got, "downstream_rq_completed=1") {
				t.Errorf("listener: %s", got)
			}
		})
	}
}

func TestBegin(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	h := metrics.NewHTTP(reg, "p", "l")
	h.Begin(3, mesh.HTTP2)
	h.Begin(4, mesh.HTTP10)
	if got, want := moved(reg, "http.p."), "downstream_rq_active=2 downstream_rq_http1_total=1 downstream_rq_http2_total=1 downstream_rq_total=2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	h.Release()
	if got := moved(reg, "http.p."); got != "" {
		t.Errorf("listed after Release: %s", got)
	}
}

func TestObserveTCP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		failure      mesh.FailureKind
		tcp, cluster string
	}{
		{mesh.NoFailure, "", ""},
		{mesh.NoRoute, "downstream_cx_no_route=1", ""},
		{mesh.NoCluster, "downstream_cx_no_route=1", ""},
		{mesh.StreamIdleTimeout, "idle_timeout=1", ""},
		{mesh.MaxDuration, "max_downstream_connection_duration=1", ""},
		{mesh.NoHealthyHost, "", "upstream_cx_none_healthy=1"},
	} {
		t.Run(tc.failure.String(), func(t *testing.T) {
			t.Parallel()
			reg := stats.NewRegistry(stats.Options{})
			x, c := metrics.NewTCP(reg, "raw"), metrics.NewCluster(reg, "x")
			metrics.ObserveTCP(x, c, &mesh.Outcome{Failure: tc.failure})
			metrics.ObserveTCP(x, nil, &mesh.Outcome{})
			if got := moved(reg, "tcp.raw."); got != tc.tcp {
				t.Errorf("tcp: %q, want %q", got, tc.tcp)
			}
			if got := moved(reg, "cluster.x."); got != tc.cluster {
				t.Errorf("cluster: %q, want %q", got, tc.cluster)
			}
		})
	}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	x := metrics.NewOutlier(reg, "x")
	x.Observe(&mesh.EjectionNotice{Ejected: true, Enforced: true, Reason: "consecutive_5xx"})
	x.Observe(&mesh.EjectionNotice{Ejected: true, Reason: "consecutive_gateway_failure"})
	x.Observe(&mesh.EjectionNotice{Ejected: true, Enforced: true, Reason: "consecutive_local_origin_failure"})
	x.Observe(&mesh.EjectionNotice{Reason: "expired"})
	want := "ejections_detected_consecutive_5xx=1 ejections_detected_consecutive_gateway_failure=1 " +
		"ejections_detected_consecutive_local_origin_failure=1 ejections_enforced_consecutive_5xx=1 " +
		"ejections_enforced_consecutive_local_origin_failure=1 ejections_enforced_total=2"
	if got := moved(reg, "cluster.x.outlier_detection."); got != want {
		t.Errorf("outlier: %s, want %s", got, want)
	}

	c := metrics.NewCircuit(reg, "y")
	c.Observe(&mesh.CircuitNotice{From: mesh.CircuitClosed, To: mesh.CircuitIsOpen}, false)
	c.Observe(&mesh.CircuitNotice{From: mesh.CircuitIsOpen, To: mesh.CircuitHalfOpen}, false)
	c.Observe(&mesh.CircuitNotice{From: mesh.CircuitClosed, To: mesh.CircuitIsOpen}, true)
	if got, want := moved(reg, "cluster.y."), "meshtap_circuit_opened_total=2 meshtap_circuit_state=3"; got != want {
		t.Errorf("circuit: %s, want %s", got, want)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	s := metrics.NewServer(reg, func() time.Duration { return 90 * time.Second })
	if s.Value(metrics.ServerUptime) != 90 {
		t.Errorf("uptime = %d", s.Value(metrics.ServerUptime))
	}
	m := metrics.ReadMemory()
	if m.Allocated == 0 || m.HeapSize < m.Allocated+m.Free || m.Physical < m.HeapSize || m.ThreadCache == 0 {
		t.Errorf("memory does not add up: %+v", m)
	}
	if s.Value(metrics.ServerMemoryHeapSize) == 0 || s.Value(metrics.ServerMemoryAllocated) == 0 || s.Value(metrics.ServerMemoryPhysicalSize) == 0 {
		t.Error("memory gauges are 0")
	}
}

func TestStatName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"outbound|80||a.svc": "outbound|80||a.svc",
		"a:80":               "a_80",
		"http://x:/y\x00":    "http_x_y_",
		"[::1]:80":           "[__1]_80",
	} {
		if got := metrics.StatName(in); got != want {
			t.Errorf("StatName(%q) = %q, want %q", in, got, want)
		}
	}
	l := &mesh.Listener{Address: mesh.Address{IP: netip.MustParseAddrPort("0.0.0.0:15001")}}
	if got := metrics.ListenerName(l); got != "0.0.0.0:15001" {
		t.Errorf("name by address: %q", got)
	}
	l.StatPrefix = "virtual"
	if got := metrics.ListenerName(l); got != "virtual" {
		t.Errorf("name by prefix: %q", got)
	}
}

// TestHotNumbersShareAPage: what moves with each request is in the first 16 numbers of its group.
func TestHotNumbersShareAPage(t *testing.T) {
	t.Parallel()
	for _, i := range []int{metrics.DownstreamRq5xx, metrics.DownstreamRqActive, metrics.DownstreamRqHTTP2Total, metrics.RqTotal,
		metrics.DownstreamCxRxBytesTotal, metrics.DownstreamCxTxBytesTotal, metrics.UpstreamRqTotal, metrics.UpstreamRqActive,
		metrics.UpstreamCxRxBytesTotal, metrics.UpstreamCxTxBytesTotal} {
		if i >= 16 {
			t.Errorf("number %d is not in the first page", i)
		}
	}
}

func outcome() *mesh.Outcome {
	return &mesh.Outcome{Shard: 1, Status: 200, Duration: 3e6, UpstreamTook: 2e6, Attempts: 1}
}

func TestNoAllocations(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	reg := stats.NewRegistry(stats.Options{})
	h, c, o := metrics.NewHTTP(reg, "p", "l"), metrics.NewCluster(reg, "x"), outcome()
	run := func() {
		h.Begin(1, mesh.HTTP11)
		metrics.ObserveHTTP(h, c, o)
	}
	run()
	if n := testing.AllocsPerRun(1000, run); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	reg := stats.NewRegistry(stats.Options{})
	h, c, o := metrics.NewHTTP(reg, "p", "l"), metrics.NewCluster(reg, "x"), outcome()
	for b.Loop() {
		h.Begin(1, mesh.HTTP11)
		metrics.ObserveHTTP(h, c, o)
	}
}
