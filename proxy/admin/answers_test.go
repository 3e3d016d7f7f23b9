// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
)

var rewrite = flag.Bool("rewrite", false, "write the answers that the tests get into testdata")

// TestAnswers sends the requests in testdata/answers.txtar, in order, and compares the answers: status, content type,
// Allow and Retry-After where they are there, and body. A file's name is the request line, with headers behind " | ".
func TestAnswers(t *testing.T) {
	t.Parallel()
	f := &fake{
		loggers:  []admin.Logger{{Name: "http", Level: "info"}, {Name: "upstream", Level: "debug"}},
		clusters: []*admin.Cluster{echo()},
	}
	_, c := start(t, admin.Config{}, f.views(), registry())
	const file = "testdata/answers.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range ar.Files {
		line, header, _ := strings.Cut(tc.Name, " | ")
		method, path, _ := strings.Cut(line, " ")
		var h []string
		if header != "" {
			name, value, _ := strings.Cut(header, ": ")
			h = []string{name, value}
		}
		if method == "STATE" { // not a request
			f.mu.Lock()
			f.state, f.waiting = admin.PreInitializing, []string{"cluster echo: endpoints"}
			f.mu.Unlock()
			continue
		}
		res, body := c.do(t, method, path, h...)
		got := answerText(res, body, f.changes())
		if *rewrite {
			ar.Files[i].Data = []byte(got)
			continue
		}
		if want := string(tc.Data); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", tc.Name, got, want)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// answerText writes down an answer, and what was done besides.
func answerText(res *http.Response, body, changes string) string {
	var b strings.Builder
	b.WriteString(res.Status + " " + res.Header.Get("Content-Type"))
	for _, name := range []string{"Allow", "Retry-After"} {
		if v := res.Header.Get(name); v != "" {
			b.WriteString(" " + name + ": " + v)
		}
	}
	if first, help, found := strings.Cut(body, "invalid path. admin commands are:\n"); found && first == "" && help != "" {
		body = "invalid path. admin commands are: ...\n"
	}
	b.WriteString("\n" + body)
	if !strings.HasSuffix(body, "\n") {
		b.WriteString("\n(no newline)\n")
	}
	if changes != "" {
		b.WriteString("did: " + changes + "\n")
	}
	return b.String()
}

// echo is a cluster with a host in each state of health.
func echo() *admin.Cluster {
	limits := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
	return &admin.Cluster{Name: "echo", StatName: "echo", AddedViaAPI: true, Outlier: true, Limits: [2]mesh.Limits{limits, limits},
		Hosts: []admin.Host{
			{Address: ip("127.0.0.1:29090"), Hostname: "h1", Weight: 1, CxActive: 1, CxTotal: 2, RqTotal: 4, RqSuccess: 2, RqError: 1,
				Locality: mesh.Locality{Region: "r", Zone: "z"}},
			{Address: ip("[::1]:29090"), Weight: 5, Priority: 1, FailedCheck: true, Ejected: true, Discovered: mesh.HealthTimeout},
		}}
}
