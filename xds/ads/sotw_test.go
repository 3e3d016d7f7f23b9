// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const cds, eds, lds, rds = "type/cluster", "type/endpoints", "type/listener", "type/route"

func newState(nodeOnce bool) *sotw {
	return newSotw(Config{
		Types: []string{cds, eds, lds, rds}, Node: &corepb.Node{Id: "me"}, NodeOnFirstOnly: nodeOnce,
		Random: func() float64 { return 0.5 },
	})
}

func response(url, version, nonce string, resources ...string) *discoverypb.DiscoveryResponse {
	r := &discoverypb.DiscoveryResponse{TypeUrl: url, VersionInfo: version, Nonce: nonce}
	for _, b := range resources {
		r.Resources = append(r.Resources, &anypb.Any{TypeUrl: url, Value: []byte(b)})
	}
	return r
}

// sent returns all requests that are due, as text.
func sent(s *sotw, now time.Time) string {
	var out []string
	for {
		next, _ := s.next(now)
		if next == nil {
			return strings.Join(out, " | ")
		}
		req := next.(*discoverypb.DiscoveryRequest)
		text := fmt.Sprintf("%s%v", strings.TrimPrefix(req.GetTypeUrl(), "type/"), req.GetResourceNames())
		if v := req.GetVersionInfo(); v != "" {
			text += " v=" + v
		}
		if n := req.GetResponseNonce(); n != "" {
			text += " n=" + n
		}
		if e := req.GetErrorDetail(); e != nil {
			text += fmt.Sprintf(" error %d %s", e.GetCode(), e.GetMessage())
		}
		if req.GetNode() != nil {
			text += " node"
		}
		out = append(out, text)
	}
}

func expect(t *testing.T, s *sotw, now time.Time, want string) {
	t.Helper()
	if got := sent(s, now); got != want {
		t.Errorf("requests: %s\nwant: %s", got, want)
	}
}

func TestSotwAsksInOrder(t *testing.T) {
	t.Parallel()
	s := newState(true)
	s.subscribe(rds, []string{"r"}, nil)
	s.subscribe(lds, []string{Wildcard}, nil)
	s.subscribe(eds, []string{"b", "a"}, nil)
	s.subscribe(cds, []string{Wildcard}, nil)
	s.restart()
	now := time.Now()
	expect(t, s, now, "cluster[] node | endpoints[a b] | listener[] | route[r]")
	expect(t, s, now, "")
	s.refresh(eds)
	expect(t, s, now, "endpoints[a b]")
}

func TestSotwSendsNodeAlways(t *testing.T) {
	t.Parallel()
	s := newState(false)
	s.subscribe(cds, []string{Wildcard}, nil)
	s.subscribe(lds, []string{Wildcard}, nil)
	expect(t, s, time.Now(), "cluster[] node | listener[] node")
}

func TestSotwAnswers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := []struct {
		name string
		do   func(*sotw)
		want string
	}{
		{"ack", func(s *sotw) { s.ack(eds, "n1", "1") }, "endpoints[a] v=1 n=n1"},
		{"nack keeps the accepted version", func(s *sotw) { s.refuse(eds, nack{nonce: "n1", version: "1", detail: "bad"}, now) },
			"endpoints[a] n=n1 error 3 bad"},
		{"no answer yet", func(*sotw) {}, ""},
		{"new names wait for the answer", func(s *sotw) { s.subscribe(eds, []string{"b"}, nil) }, ""},
		{"new names go with the answer", func(s *sotw) {
			s.subscribe(eds, []string{"b"}, nil)
			s.ack(eds, "n1", "1")
		}, "endpoints[a b] v=1 n=n1"},
		{"the last name taken back", func(s *sotw) {
			s.subscribe(eds, nil, []string{"a"})
			s.ack(eds, "n1", "1")
		}, "endpoints[] v=1 n=n1"},
		{"answer to an older response", func(s *sotw) { s.ack(eds, "n0", "0") }, ""},
		{"nack to an older response", func(s *sotw) { s.refuse(eds, nack{nonce: "n0", version: "0", detail: "bad"}, now) }, ""},
		{"nack after the ack keeps the version", func(s *sotw) {
			s.ack(eds, "n1", "1")
			sent(s, now)
			s.refuse(eds, nack{nonce: "n1", version: "1", detail: "cannot bind"}, now)
		}, "endpoints[a] v=1 n=n1 error 3 cannot bind"},
		{"types nobody knows", func(s *sotw) {
			s.ack("x", "n1", "1")
			s.refuse("x", nack{nonce: "n1", version: "1", detail: "bad"}, now)
			s.subscribe("x", []string{"a"}, nil)
			s.refresh("x")
			s.refresh(rds)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newState(true)
			s.nodeSent = true
			s.subscribe(eds, []string{"a"}, nil)
			sent(s, now)
			if _, v := s.receive(response(eds, "1", "n1", "a"), now); v != fresh {
				t.Fatalf("receive: %v", v)
			}
			tt.do(s)
			expect(t, s, now, tt.want)
		})
	}
}

func TestSotwRestartAsksForEverything(t *testing.T) {
	t.Parallel()
	s := newState(true)
	now := time.Now()
	s.subscribe(cds, []string{Wildcard}, nil)
	s.subscribe(eds, []string{"a", "warming"}, nil)
	s.subscribe(rds, []string{"r"}, nil)
	sent(s, now)
	s.receive(response(cds, "7", "n1"), time.Now())
	s.ack(cds, "n1", "7")
	s.receive(response(eds, "8", "n2"), time.Now())
	s.subscribe(rds, nil, []string{"r"})
	s.restart()
	// The verdict on a response of the old stream: what it accepted counts, what it refused does not matter.
	s.ack(eds, "n2", "8")
	s.refuse(cds, nack{nonce: "n1", version: "7", detail: "late"}, now)
	// RDS has no names left; a first request without names would ask for all.
	expect(t, s, now, "cluster[] v=7 node | endpoints[a warming] v=8")
}

func TestSotwIgnoresDuplicatesAndStrangers(t *testing.T) {
	t.Parallel()
	s := newState(true)
	s.subscribe(cds, []string{Wildcard}, nil)
	sent(s, time.Now())
	tests := []struct {
		name string
		r    *discoverypb.DiscoveryResponse
		want verdict
	}{
		{"first", response(cds, "1", "n1", "a"), fresh},
		{"the same again", response(cds, "1", "n1", "a"), duplicate},
		{"same nonce, other version", response(cds, "2", "n1", "a"), fresh},
		{"same nonce, other content", response(cds, "2", "n1", "b"), fresh},
		{"stale", response(cds, "1", "n1", "a"), duplicate},
		{"other nonce", response(cds, "1", "n2", "a"), fresh},
		{"unknown type", response("type/secret", "1", "n3"), stranger},
		{"type not asked for", response(eds, "1", "n4"), stranger},
	}
	for _, tt := range tests {
		if _, got := s.receive(tt.r, time.Now()); got != tt.want {
			t.Errorf("%s: verdict %v, want %v", tt.name, got, tt.want)
		}
	}
	for i := range 3 * maxRecent {
		s.receive(response(cds, fmt.Sprint(i), "n"), time.Now())
	}
	if n := len(s.byURL[cds].recent); n != maxRecent {
		t.Errorf("%d responses are remembered, want %d", n, maxRecent)
	}
}

func TestSotwPacesRepeatedNacks(t *testing.T) {
	t.Parallel()
	s := newState(true)
	s.nodeSent = true
	now := time.Now()
	s.subscribe(cds, []string{Wildcard}, nil)
	sent(s, now)
	refuse := func(i int, version string) {
		s.receive(response(cds, version, fmt.Sprint("n", i)), time.Now())
		s.refuse(cds, nack{nonce: fmt.Sprint("n", i), version: version, detail: "bad"}, now)
	}
	refuse(1, "1")
	expect(t, s, now, "cluster[] n=n1 error 3 bad")
	var held []time.Duration
	for i := 2; i < 8; i++ {
		refuse(i, "1")
		req, wait := s.next(now)
		if req != nil || wait == 0 {
			t.Fatalf("NACK %d of the same version is not held back", i)
		}
		held = append(held, wait)
		now = now.Add(wait)
		expect(t, s, now, fmt.Sprintf("cluster[] n=n%d error 3 bad", i))
	}
	if !slices.IsSorted(held) || held[len(held)-1] > nackPaceMax {
		t.Errorf("held back for %v", held)
	}
	refuse(8, "2")
	expect(t, s, now, "cluster[] n=n8 error 3 bad")

	// New names do not wait for a NACK that is held back.
	s.subscribe(eds, []string{"a"}, nil)
	sent(s, now)
	for i := range 2 {
		n := fmt.Sprint("e", i)
		s.receive(response(eds, "1", n), time.Now())
		s.refuse(eds, nack{nonce: n, version: "1", detail: "bad"}, now)
	}
	expect(t, s, now, "") // the first NACK was overtaken by the second response
	s.subscribe(eds, []string{"b"}, nil)
	expect(t, s, now, "endpoints[a b] n=e1 error 3 bad")
}
