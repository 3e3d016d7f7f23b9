// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink/cloudevents"
)

var host = mesh.Address{IP: netip.MustParseAddrPort("10.1.2.3:8080")}

// notices are the cases of testdata/notices.txtar.
var notices = []struct {
	name string
	n    mesh.Notice
}{
	{"circuit", mesh.Notice{Kind: mesh.NoticeCircuit, Cluster: "orders", Circuit: &mesh.CircuitNotice{
		From: mesh.CircuitClosed, To: mesh.CircuitIsOpen, Reason: "error_rate", Requests: 40, Failures: 21, Slow: 3}}},
	{"ejection", mesh.Notice{Kind: mesh.NoticeEjection, Cluster: "orders", Host: host, Ejection: &mesh.EjectionNotice{
		Ejected: true, Reason: "consecutive_5xx", Times: 2, For: 60e9, Enforced: true}}},
	{"health", mesh.Notice{Kind: mesh.NoticeHealth, Cluster: "orders", Host: mesh.Address{Pipe: "/run/x"}, Health: &mesh.HealthNotice{
		From: mesh.HealthHealthy, To: mesh.HealthUnhealthy, Source: "active_check", Reason: "connect: connection refused"}}},
	{"config-accepted", mesh.Notice{Kind: mesh.NoticeConfigAccepted, Config: &mesh.ConfigNotice{Kind: mesh.KindListener, Version: "v7", Accepted: 12}}},
	{"config-rejected", mesh.Notice{Kind: mesh.NoticeConfigRejected, Config: &mesh.ConfigNotice{Kind: mesh.KindCluster, Version: "v8",
		Accepted: 999, Rejected: 5, Errors: []mesh.Rejection{
			{Kind: mesh.KindCluster, Name: "a", Reason: "lb_policy: \x1b[31m is not known"},
			{Kind: mesh.KindCluster, Name: "b", Reason: "b"}, {Kind: mesh.KindCluster, Name: "c", Reason: "c"},
			{Kind: mesh.KindCluster, Name: "d", Reason: "d"}, {Kind: mesh.KindCluster, Name: "left out", Reason: "e"},
		}}}},
	{"config-timeout", mesh.Notice{Kind: mesh.NoticeConfigTimeout, Config: &mesh.ConfigNotice{Kind: mesh.KindRouteTable, Version: "v9",
		Errors: []mesh.Rejection{{Kind: mesh.KindRouteTable, Name: "web", Reason: "not sent within 15s"}}}}},
	{"start", mesh.Notice{Kind: mesh.NoticeStart, Lifecycle: &mesh.LifecycleNotice{Version: "0.1"}}},
	{"drain", mesh.Notice{Kind: mesh.NoticeDrain, Lifecycle: &mesh.LifecycleNotice{Reason: "SIGTERM", Connections: 3, Requests: 2}}},
	{"drained", mesh.Notice{Kind: mesh.NoticeDrained, Lifecycle: &mesh.LifecycleNotice{Version: "0.1", Connections: 1}}},
	{"stop", mesh.Notice{Kind: mesh.NoticeStop}},
	{"certificate-rotated", mesh.Notice{Kind: mesh.NoticeCertificateRotated, Certificate: &mesh.CertificateNotice{Secret: "default",
		Subject: "CN=web.test", Serial: "18f2", OldSerial: "18f1", NotAfter: 1763876400000000000}}},
	{"certificate-expiring", mesh.Notice{Kind: mesh.NoticeCertificateExpiring, Certificate: &mesh.CertificateNotice{Resource: `cluster "pay"`,
		Type: mesh.SecretValidation, Subject: "CN=authority", Serial: "1", NotAfter: 1763793600000000000}}},
	{"control-characters", mesh.Notice{Kind: mesh.NoticeCircuit, Cluster: "a\r\n\u0085b\xff", Circuit: &mesh.CircuitNotice{}}},
}

func TestNotices(t *testing.T) {
	t.Parallel()
	var got txtar.Archive
	for _, c := range notices {
		c.n.Time = 1763790000000000000
		e := noticeEvent(&c.n)
		e.ID, e.Source, e.Sequence = []byte("boot-1"), []byte("/meshtap/c/-/-/p"), 1
		js := e.AppendJSON(nil)
		if err := cloudevents.CheckJSON(js); err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, js)
		}
		var back event.Event
		if err := back.DecodeProto(e.AppendProto(nil)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if other := back.AppendJSON(nil); !bytes.Equal(js, other) {
			t.Errorf("%s: by way of protobuf:\n%s\n%s", c.name, other, js)
		}
		got.Files = append(got.Files, txtar.File{Name: c.name, Data: spread(js)})
	}
	golden(t, "notices.txtar", &got)
}

// TestEveryNotice holds that each kind of notice has an event, a case in testdata, and the one word that tells it from
// the others with the same event.
func TestEveryNotice(t *testing.T) {
	t.Parallel()
	cases := map[mesh.NoticeKind]bool{}
	for i := range notices {
		cases[notices[i].n.Kind] = true
	}
	for k := range mesh.NumNoticeKinds {
		if kinds[k] == event.Unknown {
			t.Errorf("notice %d becomes no event", k)
		}
		if !cases[k] {
			t.Errorf("notice %d has no case in notices.txtar", k)
		}
		if (kinds[k] == event.Config || kinds[k] == event.Certificate) != (results[k] != "") || (kinds[k] == event.Lifecycle) != (phases[k] != "") {
			t.Errorf("notice %d becomes a %v with the result %q and the phase %q", k, kinds[k], results[k], phases[k])
		}
	}
	tap := newTap(t, Config{}, newMemSink(Caps{Encoding: JSON, InFlight: 1}))
	tap.Notify(&mesh.Notice{Kind: mesh.NumNoticeKinds})
	if a := tap.Account(); a.Produced != 0 {
		t.Errorf("a notice of no kind became an event: %+v", a)
	}
}

// TestLargestNotice makes every text of every kind too long.
func TestLargestNotice(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("\x01", 4096)
	rejected := mesh.Rejection{Kind: mesh.KindCluster, Name: text, Reason: text}
	for i := range notices {
		n := notices[i].n
		n.Cluster, n.Host = text, mesh.Address{Pipe: text}
		switch {
		case n.Circuit != nil:
			n.Circuit = &mesh.CircuitNotice{Reason: text, Requests: 1<<32 - 1, Failures: 1<<32 - 1, Slow: 1<<32 - 1}
		case n.Ejection != nil:
			n.Ejection = &mesh.EjectionNotice{Reason: text, Times: 1<<32 - 1, For: 1<<63 - 1}
		case n.Health != nil:
			n.Health = &mesh.HealthNotice{Source: text, Reason: text}
		case n.Config != nil:
			n.Config = &mesh.ConfigNotice{Version: text, Accepted: 1 << 62, Rejected: 1 << 62,
				Errors: []mesh.Rejection{rejected, rejected, rejected, rejected, rejected}}
		case n.Certificate != nil:
			n.Certificate = &mesh.CertificateNotice{Secret: text, Resource: text, Subject: text, Serial: text, OldSerial: text, NotAfter: 1<<63 - 1}
		default:
			n.Lifecycle = &mesh.LifecycleNotice{Version: text, Reason: text, Connections: 1 << 62, Requests: 1 << 62}
		}
		e := noticeEvent(&n)
		e.ID, e.Source = []byte(strings.Repeat("f", 45)), source(Source{}, mesh.Node{ID: text, Cluster: text})
		e.BootID, e.Sequence, e.StreamSeq = []byte(strings.Repeat("f", 24)), 1, 1
		if js, pb := e.AppendJSON(nil), e.AppendProto(nil); len(js) > event.MaxSize || len(pb) > maxNotice {
			t.Errorf("notice %d: %d bytes of JSON, %d of protobuf, at most %d and %d are promised", n.Kind, len(js), len(pb), event.MaxSize, maxNotice)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"abcd", "abcd"}, {"abcde", "abcd"}, {"abé", "abé"}, {"abcé", "abc"}, {"a世b", "a世"}, {"ab世", "ab"}, {"\xff", "\ufffd"},
	} {
		if got := string(cut(c.in, 4)); got != c.want {
			t.Errorf("cut(%q, 4) = %q, want %q", c.in, got, c.want)
		}
	}
}
