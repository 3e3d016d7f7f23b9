// SPDX-License-Identifier: Apache-2.0

package ads_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/meshtap/meshtap/xds/ads"
)

// poll is one request that a server got, and where its answer goes.
type poll struct {
	head *http.Request
	req  *discoverypb.DiscoveryRequest
	body chan<- string
}

// polled runs a server whose answers the test gives.
func polled(t *testing.T) (<-chan poll, ads.Target) {
	t.Helper()
	polls := make(chan poll)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &discoverypb.DiscoveryRequest{}
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = protojson.Unmarshal(b, req)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := make(chan string, 1)
		select {
		case polls <- poll{r, req, answer}:
		case <-r.Context().Done():
			return
		}
		var body string
		select {
		case body = <-answer:
		case <-r.Context().Done():
			return
		}
		switch {
		case body == "304":
			w.WriteHeader(http.StatusNotModified)
		case body == "500":
			http.Error(w, "no", http.StatusInternalServerError)
		default:
			fmt.Fprint(w, body)
		}
	}))
	t.Cleanup(s.Close)
	return polls, ads.Target{Network: "tcp", Address: strings.TrimPrefix(s.URL, "http://")}
}

func answerWith(version string) string {
	return fmt.Sprintf(`{"version_info": %q, "unknown": 1, "resources": [{"@type": %q, "name": "a"}]}`, version, clusterType)
}

// A poll asks with the version that was accepted, and tells what is new; what fails is tried again with the back-off.
func TestPolls(t *testing.T) {
	t.Parallel()
	polls, target := polled(t)
	out := run(t, ads.Config{
		Targets: []ads.Target{target}, MaxResponseBytes: 1000,
		Poll: &ads.Poll{Path: "/v3/discovery:clusters", Delay: time.Millisecond, Timeout: hang, Host: "cp"},
	})
	next := func() poll {
		t.Helper()
		select {
		case p := <-polls:
			return p
		case <-time.After(hang):
			t.Fatal("nothing is asked")
		}
		panic("unreachable")
	}
	p := next()
	if p.head.Method != "POST" || p.head.URL.Path != "/v3/discovery:clusters" || p.head.Host != "cp" ||
		p.head.Header.Get("Content-Type") != "application/json" || p.req.GetNode().GetId() != "me" || p.req.GetTypeUrl() != clusterType {
		t.Errorf("request %v %v %v", p.head.Host, p.head.URL, p.req)
	}
	p.body <- answerWith("1")
	if r := wait[ads.Response](t, out); r.Version != "1" || len(r.Resources) != 1 || r.TypeURL != clusterType {
		t.Errorf("response %+v", r)
	}
	next().body <- "304"
	next().body <- answerWith("1") // the same again is nothing new
	next().body <- answerWith("2")
	if r := wait[ads.Response](t, out); r.Version != "2" {
		t.Errorf("response %+v", r)
	}
	for _, bad := range []struct{ body, want string }{
		{"500", "500 Internal Server Error"},
		{"not JSON", "no DiscoveryResponse"},
		{strings.Repeat(" ", 1001), "more than the 1000 bytes"},
	} {
		next().body <- bad.body
		if d := wait[ads.Disconnected](t, out); !strings.Contains(d.Err.Error(), bad.want) {
			t.Errorf("error %v, want %q", d.Err, bad.want)
		}
	}
	next().body <- answerWith("3")
	if r := wait[ads.Response](t, out); r.Version != "3" {
		t.Errorf("response %+v", r)
	}
}

// Names that were not asked for before are asked for at once, and without a version: a server that compares versions would
// say that nothing has changed. What was accepted is told in the next poll.
func TestPollAsksForNewNames(t *testing.T) {
	t.Parallel()
	polls, target := polled(t)
	c := ads.New(ads.Config{
		Targets: []ads.Target{target}, Types: []string{clusterType},
		Poll: &ads.Poll{Path: "/", Delay: 10 * time.Millisecond, Timeout: hang, Host: "cp"}, Random: func() float64 { return 0 },
	}, zap.NewNop())
	out := make(chan ads.Event)
	go func() { _ = c.Run(t.Context(), out) }()
	c.Subscribe(clusterType, []string{"a"}, nil)
	(<-polls).body <- answerWith("1")
	r := wait[ads.Response](t, out)
	c.Ack(clusterType, r.Nonce, r.Version)
	for p := range polls {
		p.body <- "304"
		if p.req.GetVersionInfo() == "1" {
			break
		}
	}
	c.Subscribe(clusterType, []string{"b"}, nil)
	for p := range polls {
		if len(p.req.GetResourceNames()) == 1 {
			p.body <- "304"
			continue
		}
		if p.req.GetVersionInfo() != "" {
			t.Errorf("new names are asked for with version %q", p.req.GetVersionInfo())
		}
		p.body <- answerWith("1")
		break
	}
	if r := wait[ads.Response](t, out); r.Version != "1" {
		t.Errorf("response %+v", r)
	}
}

// After a poll that failed, names may be asked for that were not answered before: no version is told until something came.
func TestPollsAnewAfterAFailure(t *testing.T) {
	t.Parallel()
	polls, target := polled(t)
	c := ads.New(ads.Config{
		Targets: []ads.Target{target}, Types: []string{clusterType},
		Poll: &ads.Poll{Path: "/", Delay: time.Millisecond, Timeout: hang, Host: "cp"}, Random: func() float64 { return 0 },
	}, zap.NewNop())
	out := make(chan ads.Event)
	go func() { _ = c.Run(t.Context(), out) }()
	c.Subscribe(clusterType, []string{"a"}, nil)
	(<-polls).body <- answerWith("1")
	r := wait[ads.Response](t, out)
	c.Ack(clusterType, r.Nonce, r.Version)
	failing := <-polls
	c.Subscribe(clusterType, []string{"b"}, nil)
	failing.body <- "500"
	wait[ads.Disconnected](t, out)
	for range 2 {
		p := <-polls
		if p.req.GetVersionInfo() != "" || len(p.req.GetResourceNames()) != 2 {
			t.Errorf("asked anew with %v", p.req)
		}
		p.body <- "304"
	}
	(<-polls).body <- answerWith("1")
	if r := wait[ads.Response](t, out); r.Version != "1" {
		t.Errorf("response %+v", r)
	}
}
