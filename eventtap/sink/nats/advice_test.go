// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestAdvice has servers that cannot be used, each for a reason that a person can do something about.
func TestAdvice(t *testing.T) {
	t.Parallel()
	closed := startBus(t, func(o *server.Options) { o.Username, o.Password = "tap", "right" })
	wrong := sink.WriteFile(t, "wrong", 0o600)
	for _, c := range []struct {
		name   string
		bus    *bus
		change func(*Config)
		want   string
	}{
		{"no credentials", closed, func(*Config) {}, "refused a client without credentials: set credentials_file, user or token_file"},
		{"a wrong password", closed, func(c *Config) { c.User, c.PasswordFile = "tap", wrong }, "refused the user tap with the password of " + wrong},
		{"a wrong token", closed, func(c *Config) { c.TokenFile = wrong }, "refused the token of " + wrong},
		{"nobody there", closed, func(c *Config) { c.URLs = []string{"nats://127.0.0.1:1"} }, "nobody answers at [nats://127.0.0.1:1]"},
		{"no JetStream", startBus(t, func(o *server.Options) { o.JetStream = false }), func(*Config) {}, "turn JetStream on"},
		{"no stream", startBus(t, nil), func(c *Config) { c.Create = nil }, "EVENTS does not exist; create it, or set create_stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := c.bus.config()
			c.change(&cfg)
			err := newSink(cfg).Open(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestWhyDisconnected stops the server: what is sent fails with the reason for which the client cannot connect again.
func TestWhyDisconnected(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	s := newSink(b.config())
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	b.stop()
	end := time.After(20 * time.Second)
	for s.why.Load() == nil {
		select {
		case <-end:
			t.Fatal("the client does not say why it cannot connect")
		case <-time.After(time.Millisecond):
		}
	}
	done := make(chan error, 1)
	s.Send(t.Context(), oneEvent(), func(err error) { done <- err })
	if err := <-done; err == nil || !strings.Contains(err.Error(), "not connected") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

// TestOnlyConfiguredServers has a server that tells of others: the sink does not learn of them, since nobody has said that
// they may have its credentials and events, perhaps in the clear.
func TestOnlyConfiguredServers(t *testing.T) {
	t.Parallel()
	cluster := func(o *server.Options) {
		o.JetStream = false
		o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: server.RANDOM_PORT}
	}
	b := startBus(t, cluster)
	startBus(t, func(o *server.Options) {
		cluster(o)
		o.Routes = []*url.URL{{Scheme: "nats", Host: b.srv.ClusterAddr().String()}}
	})
	told := make(chan struct{}, 8)
	nc, err := nats.Connect(b.url(), nats.DiscoveredServersHandler(func(*nats.Conn) { told <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if len(nc.DiscoveredServers()) == 0 {
		select {
		case <-told:
		case <-time.After(20 * time.Second):
			t.Fatal("the server tells of no others, so the test shows nothing")
		}
	}
	s := newSink(b.config())
	opts, err := s.options(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if nc, err = nats.Connect(b.url(), opts...); err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := nc.DiscoveredServers(); len(got) > 0 {
		t.Errorf("the sink would go to %q", got)
	}
}
