// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// script is a filter of which the test decides what it says.
type script struct {
	limit int
	say   func(p []byte) Verdict
	seen  []string
}

func (s *script) Limit() int { return s.limit }

func (s *script) Inspect(p []byte, _ bool, _ *ConnInfo) Verdict {
	s.seen = append(s.seen, string(p))
	return s.say(p)
}

// redirect is a filter that restores an original destination without a socket.
type redirect struct{ to netip.AddrPort }

func (r redirect) Open(_ int, info *ConnInfo) { info.Redirect(r.to) }

func needs(n int) func([]byte) Verdict {
	return func(p []byte) Verdict {
		if len(p) < n {
			return More
		}
		return Done
	}
}

// build makes Filters of test filters; the predicate of each is off[i].
func build(t *testing.T, fs []Filter, off ...*mesh.ListenerPredicate) *Filters {
	t.Helper()
	var cfg []mesh.ListenerFilter
	for i, f := range fs {
		lf := mesh.ListenerFilter{Extension: mesh.Extension{TypeURL: "test", Config: f}}
		if i < len(off) {
			lf.DisabledOn = off[i]
		}
		cfg = append(cfg, lf)
	}
	out, err := Compile(cfg, map[string]Build{"test": func(c any) Filter { return c.(Filter) }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRunInOrder(t *testing.T) {
	t.Parallel()
	first, second := &script{limit: 10, say: needs(2)}, &script{limit: 3, say: needs(3)}
	f := build(t, []Filter{{Peeker: first}, {Opener: redirect{netip.MustParseAddrPort("10.0.0.1:80")}}, {Peeker: second}})
	if f.Limit() != 10 {
		t.Fatalf("limit %d, want the greatest, 10", f.Limit())
	}
	var info ConnInfo
	at := int32(0)
	for i, step := range []struct {
		peeked string
		want   Verdict
		at     int32
	}{
		{"", More, 0},
		{"a", More, 0},
		{"ab", More, 2}, // the first is done, the destination is known, the second wants more
		{"abcdef", Done, 3},
	} {
		if v := f.Run(&at, -1, []byte(step.peeked), false, &info); v != step.want || at != step.at {
			t.Fatalf("step %d: verdict %d at %d, want %d at %d", i, v, at, step.want, step.at)
		}
	}
	if got := strings.Join(first.seen, " "); got != "a ab" {
		t.Errorf("the first saw %q", got)
	}
	if got := strings.Join(second.seen, " "); got != "ab abc" {
		t.Errorf("the second saw %q, want no more than its limit", got)
	}
	if !info.Redirected() {
		t.Error("the original destination was not restored")
	}
}

func TestRejectEndsTheRun(t *testing.T) {
	t.Parallel()
	never := &script{limit: 1, say: func([]byte) Verdict { panic("asked") }}
	f := build(t, []Filter{{Peeker: &script{limit: 1, say: func([]byte) Verdict { return Reject }}}, {Peeker: never}})
	at := int32(0)
	if v := f.Run(&at, -1, []byte("x"), false, &ConnInfo{}); v != Reject {
		t.Fatalf("verdict %d, want a rejection", v)
	}
}

func TestPredicates(t *testing.T) {
	t.Parallel()
	p := func(start, end int) *mesh.ListenerPredicate {
		return &mesh.ListenerPredicate{PortStart: start, PortEnd: end}
	}
	for _, tc := range []struct {
		name string
		p    *mesh.ListenerPredicate
		off  []uint16
		on   []uint16
	}{
		{"none", nil, nil, []uint16{1, 3306}},
		{"any", &mesh.ListenerPredicate{Any: true}, []uint16{0, 1, 3306}, nil},
		{"range", p(3306, 3307), []uint16{3306}, []uint16{3305, 3307}},
		{"not", &mesh.ListenerPredicate{Not: p(80, 90)}, []uint16{79, 90}, []uint16{80, 89}},
		{"or", &mesh.ListenerPredicate{Or: []*mesh.ListenerPredicate{p(1, 2), p(5, 7)}}, []uint16{1, 6}, []uint16{2, 7}},
		{"and", &mesh.ListenerPredicate{And: []*mesh.ListenerPredicate{p(1, 9), {Not: p(5, 6)}}}, []uint16{1, 6}, []uint16{5, 9}},
		{"empty", &mesh.ListenerPredicate{}, nil, []uint16{1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// The port is that of the original destination, which an earlier filter finds.
			run := func(port uint16) Verdict {
				to := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)
				f := build(t, []Filter{{Opener: redirect{to}}, {Peeker: &script{limit: 1, say: needs(1)}}}, nil, tc.p)
				at := int32(0)
				return f.Run(&at, -1, nil, false, &ConnInfo{})
			}
			for _, port := range tc.off {
				if v := run(port); v != Done {
					t.Errorf("port %d: the filter is on", port)
				}
			}
			for _, port := range tc.on {
				if v := run(port); v != More {
					t.Errorf("port %d: the filter is off", port)
				}
			}
		})
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	builds := registry.Builders(Rows())
	tls := mesh.ListenerFilter{Extension: mesh.Extension{TypeURL: typeTLSInspector, Config: TLSConfig{MaxBytes: 500}}}
	off := tls
	off.Disabled = true

	f, err := Compile([]mesh.ListenerFilter{off}, builds, nil)
	if err != nil || f.Limit() != 0 {
		t.Errorf("a filter that is disabled looks at %d bytes, %v", f.Limit(), err)
	}
	if f, err = Compile([]mesh.ListenerFilter{tls}, builds, nil); err != nil || f.Limit() != 500 || f.FindsOriginalDst() {
		t.Errorf("limit %d, %v", f.Limit(), err)
	}
	with := f.WithOriginalDst()
	if !with.FindsOriginalDst() || f.FindsOriginalDst() || with.WithOriginalDst() != with {
		t.Error("use_original_dst does not add its filter once")
	}
	_, err = Compile([]mesh.ListenerFilter{tls, {Extension: mesh.Extension{TypeURL: "x.Y"}}}, builds, nil)
	if err == nil || err.Error() != `listener_filters[1]: there is no listener filter of type "x.Y"` {
		t.Errorf("got %v", err)
	}
}

// TestConnInfo: what was not found reads as nothing; the socket's addresses are the connection's until it is redirected.
func TestConnInfo(t *testing.T) {
	t.Parallel()
	remote, local := netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("10.0.0.1:15001")
	info := &ConnInfo{Remote: remote, Local: local}
	if info.ServerName() != "" || info.ApplicationProtocols() != nil || info.TLS() != nil || info.ALPN() != "" || info.Transport.String() != "raw_buffer" {
		t.Errorf("nothing was found, but there is %+v", info)
	}
	if info.Redirected() || info.DirectRemote() != remote || info.DirectLocal() != local {
		t.Errorf("nobody redirected it, but there is %+v", info)
	}
	info.Greet().ServerName = "a.example"
	info.Greet().TLS = &mesh.TLSInfo{ALPN: "h2"}
	if info.ServerName() != "a.example" || info.TLS() == nil || info.ALPN() != "h2" {
		t.Errorf("greeted: %+v", info.Hello)
	}
	for _, to := range []string{"203.0.113.7:80", "203.0.113.7:81"} {
		info.Redirect(netip.MustParseAddrPort(to))
		if !info.Redirected() || info.Local.String() != to || info.Remote != remote || info.DirectRemote() != remote || info.DirectLocal() != local {
			t.Errorf("redirected to %s: %+v", to, info)
		}
	}
}
