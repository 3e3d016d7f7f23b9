// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// startGRPC serves testdata/grpc.yaml by the binary, Meshtap's where it is "".
func startGRPC(t *testing.T, binary string) *examples.Rig {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "grpc.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r := examples.NewRig(t)
	r.Start(r.Prepare(string(text)), binary)
	return r
}

// The answers that neither passes on from an upstream, and what upstreams are told of deadlines, are the same. A grpc-timeout
// that cannot be read is told as it is; white space and signs, which Envoy takes, are left out here.
func TestSameGRPC(t *testing.T) {
	t.Parallel()
	theirs, ours := startGRPC(t, envoy), startGRPC(t, "")
	same := func(q examples.Request) {
		q.Header = append(q.Header, "content-type: application/grpc")
		q.Body = string(origin.Frame("ping"))
		if q.Method == "" {
			q.Method = "POST"
		}
		for _, d := range differences(theirs.Do(q), ours.Do(q)) {
			t.Errorf("%s %s: %s", q.Path, q.Header, d)
		}
	}
	for _, path := range []string{
		"/direct.200", "/direct.418", "/own.status", "/redirect", "/dead", "/none.503", "/none.404", "/empty", "/full", "/no.route", "/%00",
	} {
		same(examples.Request{Path: path})
	}
	same(examples.Request{Path: "/dead", Method: "HEAD"})
	for _, path := range []string{
		"/old/x", "/old.unlimited/x", "/old.try/x", "/new/x", "/new.unlimited/x", "/new.duration/x", "/new.none/x", "/new.empty/x", "/plain/x",
	} {
		same(examples.Request{Path: path})
		same(examples.Request{Path: path, Header: []string{"grpc-timeout: 10S"}})
	}
	for _, v := range []string{"1H", "99999999S", "15000000u", "5000000n", "12345678m", "123456789m", "-5m", "5x", "m", "S5"} {
		same(examples.Request{Path: "/new.unlimited/x", Header: []string{"grpc-timeout: " + v}})
		same(examples.Request{Path: "/old.unlimited/x", Header: []string{"grpc-timeout: " + v}})
	}
	for _, do := range []string{"x-do: fail=2", "x-do: fail=3", "x-do: head=14", "x-do: head=13", "x-do: status=14", "x-do: html"} {
		same(examples.Request{Path: "/retry/x", Header: []string{do, "x-case: " + do}})
	}
}

// Counters of clusters are those of the HTTP statuses that gRPC's clients do not see.
func TestSameGRPCCounters(t *testing.T) {
	t.Parallel()
	for _, r := range []*examples.Rig{startGRPC(t, envoy), startGRPC(t, "")} {
		for _, path := range []string{"/dead", "/empty", "/full", "/new/x"} {
			r.Do(examples.Request{Path: path, Method: "POST", Header: []string{"content-type: application/grpc"}})
		}
		var s sidecar.Stats
		r.Admin.UntilStats(func(now sidecar.Stats) bool { // which may come after the answer
			s = now
			return now["http.http.downstream_rq_2xx"] >= 4 && now["cluster.web.upstream_rq_200"] >= 1
		})
		for name, want := range map[string]int64{
			"cluster.dead.upstream_rq_503": 1, "cluster.empty.upstream_rq_503": 1, "cluster.full.upstream_rq_503": 1,
			"cluster.web.upstream_rq_200": 1, "http.http.downstream_rq_2xx": 4, "http.http.downstream_rq_5xx": 0,
		} {
			if s[name] != want {
				t.Errorf("Envoy %v: %s is %d, want %d", r.Envoy, name, s[name], want)
			}
		}
	}
}
