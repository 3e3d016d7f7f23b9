// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Targets are the flags that say where to look. What is not given comes from the environment, and else from the context
// file.
type Targets struct {
	cmd     *cobra.Command
	admin   []string
	file    string
	Timeout time.Duration
	bus     BusConfig
	context *Context // nil until it is read; empty where there is none
	stale   error
}

// Add adds the flags to a verb.
func (t *Targets) Add(cmd *cobra.Command) {
	t.cmd = cmd
	s := cmd.Flags()
	s.StringSliceVar(&t.admin, "admin", nil, "a proxy's administration `address`: a socket's path, host:port or URL; repeatable")
	s.StringVar(&t.file, "context", "", "`file` that says where the proxies are, as meshtapd demo writes it")
	s.DurationVar(&t.Timeout, "timeout", 0, "end after this `time` with exit code 124; 0 does not")
	Common(cmd, "admin", "context", "timeout")
}

// AddContext adds the flags to a verb that only needs the context.
func (t *Targets) AddContext(cmd *cobra.Command) {
	t.cmd = cmd
	s := cmd.Flags()
	s.StringVar(&t.file, "context", "", "`file` that says where the proxies are, as meshtapd demo writes it")
	s.DurationVar(&t.Timeout, "timeout", 0, "end after this `time` with exit code 124; 0 does not")
	Common(cmd, "context", "timeout")
}

// AddBus adds the flags for the event bus.
func (t *Targets) AddBus(cmd *cobra.Command) {
	t.cmd = cmd
	s := cmd.Flags()
	s.StringVar(&t.bus.URL, "bus", "", "`URL`: a NATS server with events, as nats://127.0.0.1:4222")
	s.StringVar(&t.bus.TokenFile, "bus-token-file", "", "`file` with the token for --bus")
	s.StringVar(&t.bus.Credentials, "bus-credentials", "", "`file` with NATS credentials for --bus")
	s.StringVar(&t.bus.Stream, "stream", "", "JetStream `stream` of the events (MESHTAP)")
	s.StringVar(&t.bus.Subject, "subject", "", "`subjects` of the events (meshtap.events.>)")
	Common(cmd, "bus-token-file", "bus-credentials", "stream", "subject")
}

// given reports whether a flag has a value from the command line, or from the environment too.
func (t *Targets) given(flag string, environment bool) bool {
	f := t.cmd.Flags().Lookup(flag)
	return f != nil && f.Changed && (environment || onCommandLine(f))
}

// load reads the context once. A context that is stale is told of where nothing else says where to look.
func (t *Targets) load() (*Context, error) {
	if t.context != nil {
		return t.context, nil
	}
	path := t.file
	if path == "" {
		path = ContextPath(os.Getenv)
	}
	c, err := readContext(path)
	var stale *errStale
	switch {
	case err == nil:
	case errors.As(err, &stale):
		c, t.stale = &Context{}, err
		fmt.Fprintf(t.cmd.ErrOrStderr(), "meshtap: %s\n", Clean(err.Error()))
	case errors.Is(err, fs.ErrNotExist) && t.file == "":
		c = &Context{}
	default:
		return nil, Usage("it is what meshtapd demo writes; without it, name a proxy with --admin", "the context cannot be read: %v", err)
	}
	t.context = c
	return c, nil
}

// Context returns the context, an empty one where there is none.
func (t *Targets) Context() (*Context, error) { return t.load() }

// Proxies returns the proxies to ask: those of --admin, of MESHTAP_ADMIN, or of the context, in this order. A --context
// on the command line comes before MESHTAP_ADMIN.
func (t *Targets) Proxies() ([]Proxy, error) {
	environment := !t.given("context", false)
	if t.given("admin", environment) {
		var out []Proxy
		for _, a := range t.admin {
			p := Proxy{Admin: a}
			if err := p.check(); err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	}
	c, err := t.load()
	if err != nil {
		return nil, err
	}
	if len(c.Proxies) == 0 {
		return nil, nothing("there is no proxy to ask", t.stale, "start meshtapd demo, or name a proxy with --admin ADDRESS")
	}
	for _, p := range c.Proxies {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	return c.Proxies, nil
}

// HasProxies reports whether there is a proxy to ask: one is named, or the context has one.
func (t *Targets) HasProxies() (bool, error) {
	if t.given("admin", !t.given("context", false)) {
		return true, nil
	}
	c, err := t.load()
	return err == nil && len(c.Proxies) > 0, err
}

// Named returns the proxies whose name or service is among the names; without names all.
func Named(all []Proxy, names []string) ([]Proxy, error) {
	if len(names) == 0 {
		return all, nil
	}
	var out []Proxy
	var known []string
	for _, p := range all {
		known = append(known, p.Label())
	}
	for _, n := range names {
		found := false
		for _, p := range all {
			if n == p.Name || n == p.Service || n == p.Admin {
				out, found = append(out, p), true
			}
		}
		if !found {
			return nil, Usage(DidYouMean(n, known), "there is no proxy %q", n)
		}
	}
	return out, nil
}

// Bus returns the event bus: that of --bus, of MESHTAP_BUS, or of the context, in this order.
func (t *Targets) Bus() (BusConfig, error) {
	b := t.bus
	if !t.given("bus", !t.given("context", false)) {
		c, err := t.load()
		if err != nil {
			return b, err
		}
		if c.Bus == nil {
			return b, nothing("there is no event bus to read", t.stale, "start meshtapd demo, or name a NATS server with --bus URL")
		}
		b.URL, b.token = c.Bus.URL, c.Bus.Token
		if b.Stream == "" {
			b.Stream = c.Bus.Stream
		}
		if b.Subject == "" {
			b.Subject = c.Bus.Subject
		}
	}
	b.setDefaults()
	return b, b.check()
}

// ForeignBus returns the address of --bus, or of MESHTAP_BUS, where it is that of a bus other than NATS; "" otherwise.
func (t *Targets) ForeignBus() string {
	scheme, _, ok := strings.Cut(t.bus.URL, "://")
	if !ok || scheme == "nats" || scheme == "tls" || !t.given("bus", !t.given("context", false)) {
		return ""
	}
	return t.bus.URL
}

// WantsBus reports whether live events are to come from the bus: it was asked for, and no proxy was, or the context has
// nothing else.
func (t *Targets) WantsBus() (bool, error) {
	environment := !t.given("context", false)
	switch {
	case t.given("admin", false):
		return false, nil
	case t.given("bus", environment):
		return true, nil
	case t.given("admin", environment):
		return false, nil
	}
	c, err := t.load()
	return err == nil && len(c.Proxies) == 0 && c.Bus != nil, err
}

func nothing(what string, stale error, hint string) *Error {
	if stale != nil {
		what += "; the only context is stale"
	}
	return &Error{Exit: ExitUnreachable, Msg: what, Hint: hint}
}
