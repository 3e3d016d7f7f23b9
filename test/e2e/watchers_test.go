// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// A thousand watchers ask a proxy for its events and do not read them, under load: those for whom there is a place are served
// until they are too slow, the others are told that there is none, no request fails, and memory stays where it was (F91).
func TestThousandWatchers(t *testing.T) {
	t.Parallel()
	r := examples.NewRig(t)
	r.Start(r.Read("tap.yaml"), "")
	l := load.Start(t, load.Options{Workers: 8, Rate: 2000, Addr: func() string { return r.Addr("") }})
	produced := func(n int64) {
		from := r.Admin.Stats()["meshtap.tap.produced"]
		r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["meshtap.tap.produced"] > from+n })
	}
	produced(2000)
	before := look(t, r)
	answers := map[int]int{}
	for range 1000 {
		if code := watch(t, r.Admin.Addr()); code > 0 {
			answers[code]++
		} else {
			answers[0]++ // it was not even let in
		}
	}
	rounds := 1
	if soak() {
		rounds = 12
	}
	for range rounds {
		produced(10_000)
	}
	after := look(t, r)
	res := l.Stop()
	t.Logf("figure: %v; answers %v; %d KiB before, %d KiB after, %d goroutines and %d", res, answers, before.rss, after.rss, before.goroutines, after.goroutines)
	if res.Failed > 0 || answers[http.StatusOK] == 0 || answers[http.StatusOK] == 1000 || after.rss-before.rss > 50<<10 {
		t.Errorf("%d of %d requests failed: %q; answers %v; from %d to %d KiB", res.Failed, res.Requests, res.Failures, answers, before.rss, after.rss)
	}
}

// watch asks for events and reads no more than the head of the answer; 0 is no answer.
func watch(t *testing.T, addr string) int {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, sidecar.Hang)
	if err != nil {
		return 0
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(sidecar.Hang))
	if _, err := io.WriteString(c, fmt.Sprintf("GET /events HTTP/1.1\r\nhost: %s\r\n\r\n", addr)); err != nil {
		return 0
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
	if err != nil {
		return 0
	}
	return resp.StatusCode
}
