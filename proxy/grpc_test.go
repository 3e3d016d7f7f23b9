// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/base64"
	"fmt"
	"io"
	gomaps "maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/filter/grpchttp1bridge"
	"github.com/meshtap/meshtap/proxy/filter/grpcstats"
	"github.com/meshtap/meshtap/proxy/filter/grpcweb"
	"github.com/meshtap/meshtap/proxy/inspect"
)

// grpcRig is a server whose manager has these filters, over one upstream. It returns the registry, too.
func grpcRig(t testing.TB, h http.HandlerFunc, filters ...mesh.Extension) (*rig, *stats.Registry) {
	rec, reg := newRecorder(), stats.NewRegistry(stats.Options{})
	var rows []registry.Row[filter.Builder]
	rows = append(append(append(rows, grpcstats.Rows()...), grpcweb.Rows()...), grpchttp1bridge.Rows()...)
	s, err := New(Config{}, Deps{
		Log: zap.NewNop(), Stats: reg, Notifier: rec, Observers: []mesh.Observer{rec},
		ListenerFilters: registry.Builders(inspect.Rows()), Policies: registry.Builders(lb.Rows()), HTTPFilters: registry.Builders(rows),
		Logs: func([]mesh.AccessLog) (Logs, error) { return noLogs{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r := &rig{Server: s, t: t, rec: rec}
	m := manager()
	m.EnableTrailers, m.Filters = true, filters
	r.serve(m, []*mesh.Route{prefix("/", to("c"))}, cluster("c", backend(t, h)))
	return r, reg
}

func statsFilter(c grpcstats.Config) mesh.Extension {
	return mesh.Extension{Name: "stats", TypeURL: "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", Config: c}
}

func webFilter() mesh.Extension {
	return mesh.Extension{Name: "web", TypeURL: "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}
}

func bridgeFilter() mesh.Extension {
	return mesh.Extension{
		Name: "bridge", TypeURL: "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config",
		Config: grpchttp1bridge.Config{UpgradeProtobuf: true, IgnoreQuery: true},
	}
}

// counters are those with a prefix, without it.
func counters(reg *stats.Registry, prefix string) map[string]int64 {
	out := map[string]int64{}
	for m := range eachMetric(reg) {
		if name, ok := strings.CutPrefix(string(m.AppendName(nil)), prefix); ok {
			out[name] = m.Value
		}
	}
	return out
}

func eachMetric(reg *stats.Registry) func(func(*stats.Metric) bool) {
	return func(yield func(*stats.Metric) bool) {
		reg.Each(func(k stats.Kind) bool { return k == stats.Counter }, yield)
	}
}

func framed(s string) string { return string(grpcwire.AppendHead(nil, 0, len(s))) + s }

// duplex answers each message as it comes.
func duplex(t testing.TB) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		ctl := http.NewResponseController(w)
		if err := ctl.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.WriteHeader(200)
		_ = ctl.Flush()
		buf := make([]byte, 4096)
		for {
			n, err := q.Body.Read(buf)
			w.Write(buf[:n])
			_ = ctl.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
	}
}

// TestGRPCStream: messages go both ways, one after the other, and are counted while the stream lasts; its end is counted
// and told of with its trailers.
func TestGRPCStream(t *testing.T) {
	t.Parallel()
	const rounds = 50
	r, reg := grpcRig(t, duplex(t), statsFilter(grpcstats.Config{All: true, UpstreamTime: true}))
	in, out := io.Pipe()
	q, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.addr+"/p.Svc/Chat?x=1", in)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/grpc")
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := client.Do(q)
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	write := func(s string) {
		if _, err := io.WriteString(out, s); err != nil {
			t.Fatal(err)
		}
	}
	write(framed("0"))
	resp := <-answered
	if resp == nil {
		t.FailNow()
	}
	defer resp.Body.Close()
	for i := range rounds {
		want := framed(fmt.Sprint(i))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("message %d: %q, %v", i, got, err)
		}
		if i == rounds/2 {
			c := counters(reg, "cluster.c.grpc.p.Svc.Chat.")
			if c["request_message_count"] != rounds/2+1 || c["response_message_count"] != rounds/2+1 || c["total"] != 0 {
				t.Errorf("in the middle: %v", c)
			}
		}
		if i+1 < rounds {
			write(framed(fmt.Sprint(i + 1)))
		}
	}
	out.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q, %v, trailers %v", rest, err, resp.Trailer)
	}
	o := r.rec.wait(t, 1)[0]
	if !o.GRPC || o.GRPCStatus != 0 || o.RequestMessages != rounds || o.ResponseMessages != rounds || o.Failure != mesh.NoFailure {
		t.Errorf("%+v", o)
	}
	want := map[string]int64{"0": 1, "success": 1, "total": 1, "request_message_count": rounds, "response_message_count": rounds}
	if c := counters(reg, "cluster.c.grpc.p.Svc.Chat."); !gomaps.Equal(c, want) {
		t.Errorf("%v, want %v", c, want)
	}
}

// TestGRPCClientLeaves: a stream whose client goes has one outcome without a status, and nothing is left behind.
func TestGRPCClientLeaves(t *testing.T) {
	t.Parallel()
	r, reg := grpcRig(t, duplex(t), statsFilter(grpcstats.Config{All: true}))
	c, br := httpDial(t, r.addr)
	fmt.Fprintf(c, "POST /p.Svc/Chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n%s\r\n", framed("x"))
	if line, err := br.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Fatal(line, err)
	}
	c.SetLinger(0)
	c.Close()
	o := r.rec.wait(t, 1)[0]
	if !o.GRPC || o.Failure != mesh.DownstreamClosed || o.RequestMessages != 1 {
		t.Errorf("%+v", o)
	}
	if n := counters(reg, "cluster.c.grpc.p.Svc.Chat."); n["request_message_count"] != 1 || n["total"] != 0 {
		t.Errorf("%v", n)
	}
}

// TestGRPCFilterEdges: what the examples cannot show, by filter.
func TestGRPCFilterEdges(t *testing.T) {
	t.Parallel()
	const (
		pre      = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
		protobuf = "Content-Type: application/x-protobuf\r\n"
		webText  = "Content-Type: application/grpc-web-text\r\nAccept: application/grpc-web-text\r\n"
		grpc     = "Content-Type: application/grpc\r\n"
	)
	chunks := func(parts ...string) string {
		var b strings.Builder
		for _, p := range parts {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
		}
		return b.String()
	}
	echo := func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("X-Got", fmt.Sprintf("%q %s", body, q.URL))
		w.Header().Set("Content-Length", "0")
	}
	raw := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			io.Copy(io.Discard, q.Body)
			c, rw, _ := http.NewResponseController(w).Hijack()
			rw.WriteString(answer)
			rw.Flush()
			c.Close()
		}
	}
	b64 := base64.StdEncoding.EncodeToString
	for _, c := range []struct {
		name     string
		filters  []mesh.Extension
		upstream http.HandlerFunc
		head     string // fields of the request
		body     string // as on the wire
		want     []string
		not      []string
		details  string
	}{
		{
			"bridge: a body of unknown length is put into a frame", []mesh.Extension{bridgeFilter()}, echo, protobuf + "Transfer-Encoding: chunked\r\n",
			chunks("pi", "ng") + "0\r\n\r\n", []string{"HTTP/1.1 200", `X-Got: "\x00\x00\x00\x00\x04ping" /p.Svc/Do`}, nil, "via_upstream",
		},
		{
			"bridge: a body of unknown length that is too large", []mesh.Extension{bridgeFilter()}, echo, protobuf + "Transfer-Encoding: chunked\r\n",
			chunks(strings.Repeat("x", filter.MaxCollected), "x") + "0\r\n\r\n", []string{"HTTP/1.1 413", "Payload Too Large"}, nil, "request_payload_too_large",
		},
		{
			"bridge: an answer that is too large", []mesh.Extension{bridgeFilter()}, raw(pre + chunks(strings.Repeat("x", filter.MaxCollected), "x") + "0\r\n\r\n"),
			grpc + "Content-Length: 0\r\n", "", []string{"HTTP/1.1 200", "grpc-status: 2", "grpc-message: Internal Server Error"}, []string{"xxxx"}, "response_payload_too_large",
		},
		{
			"bridge: an answer that breaks off", []mesh.Extension{bridgeFilter()}, raw(pre + chunks("abc")),
			grpc + "Content-Length: 0\r\n", "", []string{"HTTP/1.1 200", "grpc-status: 14"}, []string{"abc"}, "upstream_reset_before_response_started{connection_termination}",
		},
		{
			"web: base64 that goes wrong later on", []mesh.Extension{webFilter()}, echo, webText + "Transfer-Encoding: chunked\r\n",
			chunks(b64([]byte(framed("hello!"))), "????") + "0\r\n\r\n", []string{"HTTP/1.1 400", "grpc-status: 13", "invalid base64 data"}, nil, "grpc_base_64_decode_failed",
		},
		{
			"web: a page that is longer than a message may be", []mesh.Extension{webFilter()},
			raw("HTTP/1.1 502 X\r\nContent-Type: text/html\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("y", 20000)),
			"Content-Type: application/grpc-web\r\nContent-Length: 0\r\n", "", []string{"HTTP/1.1 502", "grpc-status: 14", "grpc-message: " + strings.Repeat("y", 16<<10) + "\r\n"}, nil, "via_upstream",
		},
		{
			"web: an answer that breaks off is not taken for whole", []mesh.Extension{webFilter()}, raw(pre + chunks(framed("abc"))),
			webText + "Content-Length: 0\r\n", "", []string{"HTTP/1.1 200", b64([]byte(framed("abc")))}, []string{"\r\n0\r\n"}, "upstream_reset_after_response_started{connection_termination}",
		},
		{
			"web before stats: both see what is theirs", []mesh.Extension{webFilter(), statsFilter(grpcstats.Config{})},
			raw(pre + chunks(framed("abc")) + "0\r\ngrpc-status: 0\r\n\r\n"), webText + "Content-Length: 8\r\n", b64([]byte(framed("")))[:8],
			[]string{"HTTP/1.1 200", b64([]byte(framed("abc")))}, nil, "via_upstream",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, _ := grpcRig(t, c.upstream, c.filters...)
			got := r.tolerant("POST /p.Svc/Do?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + c.head + "\r\n" + c.body)
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("the answer lacks %.200q:\n%.600q", w, got)
				}
			}
			for _, w := range c.not {
				if strings.Contains(got, w) {
					t.Errorf("the answer holds %.200q:\n%.600q", w, got)
				}
			}
			if o := r.rec.wait(t, 1); len(o) != 1 || o[0].Details != c.details {
				t.Errorf("%d outcomes, the first is %+v", len(o), o[0])
			}
		})
	}
}

// tolerant is raw for answers that may end in a reset.
func (r *rig) tolerant(in string) string {
	c, br := httpDial(r.t, r.addr)
	go io.WriteString(c, in)
	out, _ := io.ReadAll(br)
	return string(out)
}

// TestGRPCManyMethods: methods that clients make up do not fill the memory, and those that are listed are not pushed out.
func TestGRPCManyMethods(t *testing.T) {
	t.Parallel()
	r, reg := grpcRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "12")
	}, statsFilter(grpcstats.Config{All: true, Methods: map[string]map[string]bool{"p.Svc": {"Listed": true}}}))
	const calls = 400
	c, br := httpDial(t, r.addr)
	for i := range calls + 1 {
		path := fmt.Sprintf("/made.up/M%d", i)
		if i == calls {
			path = "/p.Svc/Listed"
		}
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n", path)
		if _, _, err := httpRead(br); err != nil {
			t.Fatal(err)
		}
	}
	r.rec.wait(t, calls+1)
	n := counters(reg, "cluster.c.grpc.")
	made := slices.Collect(gomaps.Keys(n))
	made = slices.DeleteFunc(made, func(s string) bool { return !strings.HasPrefix(s, "made.up.") || !strings.HasSuffix(s, ".total") })
	if len(made) != 256 || n["total"] != calls-256 || n["12"] != calls-256 || n["p.Svc.Listed.total"] != 1 {
		t.Errorf("%d methods have numbers of their own, %d calls have not, and the listed one %d", len(made), n["total"], n["p.Svc.Listed.total"])
	}
	r.Close()
	if left := counters(reg, "cluster.c.grpc"); len(left) > 0 {
		t.Errorf("%d numbers are left of a server that was closed", len(left))
	}
}

// TestGRPCTimeoutEnds: the client's own deadline ends a call that the upstream does not answer.
func TestGRPCTimeoutEnds(t *testing.T) {
	t.Parallel()
	released := make(chan struct{})
	r, _ := grpcRig(t, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-released:
		case <-q.Context().Done():
		}
	})
	t.Cleanup(func() { close(released) })
	longest := time.Hour
	a := to("c")
	a.Timeout, a.GRPC = 15*time.Second, mesh.GRPCTimeouts{Durations: true, HeaderMax: &longest}
	r.route(prefix("/", a))
	r.apply()
	got := r.raw("POST /p.Svc/Do HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/grpc\r\ngrpc-timeout: 50m\r\nContent-Length: 0\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, "grpc-status: 4\r\n") {
		t.Errorf("%q", got)
	}
	if o := r.rec.wait(t, 1)[0]; o.Failure != mesh.MaxDuration || o.GRPCStatus != grpcwire.DeadlineExceeded || o.ClusterStatus != 504 {
		t.Errorf("%+v", o)
	}
}
