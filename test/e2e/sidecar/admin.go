// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Admin asks a proxy's administration interface.
type Admin struct {
	tb     testing.TB
	proxy  *Proxy
	client *http.Client
	addr   string
}

// Admin waits for the administration interface and returns its client.
func (p *Proxy) Admin() *Admin {
	p.tb.Helper()
	pattern := `"administration interface","address":"([^"]+)"`
	if p.envoy {
		pattern = `admin address: (\S+)`
	}
	return p.AdminAt(p.Logged(pattern)[1], http.DefaultTransport)
}

// AdminAt returns a client for the administration interface at an address, over a transport of the caller's.
func (p *Proxy) AdminAt(addr string, t http.RoundTripper) *Admin {
	return &Admin{tb: p.tb, proxy: p, client: &http.Client{Timeout: Hang, Transport: t}, addr: addr}
}

// Addr returns the address.
func (a *Admin) Addr() string { return a.addr }

// Do makes a request without a body.
func (a *Admin) Do(method, path string) (status int, body string, err error) {
	req, err := http.NewRequest(method, "http://"+a.addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Get returns the body of a path that must be answered with 200.
func (a *Admin) Get(path string) string {
	a.tb.Helper()
	return a.must("GET", path)
}

// Post asks for a change.
func (a *Admin) Post(path string) string {
	a.tb.Helper()
	return a.must("POST", path)
}

func (a *Admin) must(method, path string) string {
	a.tb.Helper()
	status, body, err := a.Do(method, path)
	if err != nil || status != http.StatusOK {
		a.tb.Fatalf("admin: %s %s: %d %q, %v", method, path, status, body, err)
	}
	return body
}

// JSON reads the JSON document of a path into v.
func (a *Admin) JSON(path string, v any) {
	a.tb.Helper()
	if err := json.Unmarshal([]byte(a.Get(path)), v); err != nil {
		a.tb.Fatalf("admin: %s: %v", path, err)
	}
}

// Until asks a path until the answer is right. Another process does not tell when it has got there.
func (a *Admin) Until(path string, right func(status int, body string) bool) {
	a.tb.Helper()
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	var status int
	var body string
	for limit := time.After(Hang); ; {
		var err error
		if status, body, err = a.Do("GET", path); err == nil && right(status, body) {
			return
		}
		select {
		case <-pace.C:
		case <-a.proxy.exited:
			a.tb.Fatalf("admin: the process has ended; its log:\n%s", a.proxy.Log())
		case <-limit:
			a.tb.Fatalf("admin: %s stays as it is: %d\n%s", path, status, body)
		}
	}
}

// Stats returns the counters and gauges.
func (a *Admin) Stats() Stats {
	a.tb.Helper()
	return parseStats(a.Get("/stats"))
}

// UntilStats asks for the counters and gauges until they are right, and returns them.
func (a *Admin) UntilStats(right func(Stats) bool) (s Stats) {
	a.tb.Helper()
	a.Until("/stats", func(status int, body string) bool {
		s = parseStats(body)
		return status == http.StatusOK && right(s)
	})
	return s
}

// Stats are counters and gauges by name; one that is not there is 0.
type Stats map[string]int64

func parseStats(text string) Stats {
	s := Stats{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			s[name] = n
		}
	}
	return s
}

// Sum adds the values whose names begin and end so.
func (s Stats) Sum(prefix, suffix string) (sum int64) {
	for name, v := range s {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			sum += v
		}
	}
	return sum
}

// Listeners returns where the listeners are bound, by name.
func (a *Admin) Listeners() map[string]string {
	a.tb.Helper()
	var doc struct {
		Statuses []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	a.JSON("/listeners?format=json", &doc)
	out := map[string]string{}
	for _, l := range doc.Statuses {
		out[l.Name] = fmt.Sprintf("%s:%d", l.Local.Socket.Address, l.Local.Socket.Port)
	}
	return out
}

// XDS returns how the proxy stands with its control plane.
func (a *Admin) XDS() (x XDS) {
	a.tb.Helper()
	a.JSON("/xds", &x)
	return x
}

// XDS is the answer of /xds, as far as tests need it.
type XDS struct {
	ControlPlane string    `json:"control_plane"`
	Connected    bool      `json:"connected"`
	Types        []XDSType `json:"types"`
}

// XDSType is one type of XDS.
type XDSType struct {
	Type     string `json:"type"`
	State    string `json:"state"`
	Version  string `json:"version"`
	Rejected []struct {
		Reason string `json:"reason"`
	} `json:"rejected"`
}

// Of returns a type, such as "cluster".
func (x XDS) Of(name string) XDSType {
	for _, t := range x.Types {
		if t.Type == name {
			return t
		}
	}
	return XDSType{}
}
