// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// Secrets are the secrets in force, by key. Whoever has a context that names one sees each change with the next handshake.
// They may be used by many goroutines.
type Secrets struct {
	mu    sync.Mutex
	byKey map[string]*slot // guarded by mu
}

// slot is the place of one secret: nil until it comes.
type slot struct{ now atomic.Pointer[mesh.Secret] }

// NewSecrets returns a table without secrets.
func NewSecrets() *Secrets { return &Secrets{byKey: map[string]*slot{}} }

// Set puts a secret into force. A nil one gives its place back, since nothing new names it; contexts that are on their way
// out keep what they have.
func (s *Secrets) Set(key string, secret *mesh.Secret) {
	if secret == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.byKey, key)
		return
	}
	s.slot(key).now.Store(secret)
}

// InForce returns the secrets that are there, by name.
func (s *Secrets) InForce() []*mesh.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*mesh.Secret
	for _, key := range slices.Sorted(maps.Keys(s.byKey)) {
		if secret := s.byKey[key].now.Load(); secret != nil {
			out = append(out, secret)
		}
	}
	slices.SortStableFunc(out, func(a, b *mesh.Secret) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Type(), b.Type()))
	})
	return out
}

// slot returns the place of a secret, which is made where there is none.
func (s *Secrets) slot(key string) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byKey[key]
	if x == nil {
		x = &slot{}
		s.byKey[key] = x
	}
	return x
}

// errNotReady is a handshake before the secrets that it needs are there.
var errNotReady = errors.New("transport: a secret is not there yet")

// setting is a TLS context with the secrets that it names. What crypto/tls works with is made anew when one of them has
// changed, by the first handshake after that; each handshake sees one state from its start to its end.
type setting struct {
	// Immutable.
	m     *mesh.TLSContext
	build func(*mesh.TLSContext) (*tls.Config, error)
	stats *metrics.TLS
	// slots are the places of the certificates, then that of the validation where m names one.
	slots []*slot

	built atomic.Pointer[built]
	mu    sync.Mutex // held while a new one is made
}

// built is what was made of secrets. It does not change.
type built struct {
	secrets []*mesh.Secret
	config  *tls.Config
}

// newSetting returns a setting. One that names no secrets is built at once, and never again. secrets may be nil then.
func newSetting(m *mesh.TLSContext, secrets *Secrets, stats *metrics.TLS, build func(*mesh.TLSContext) (*tls.Config, error)) (*setting, error) {
	c := &setting{m: m, build: build, stats: stats}
	for _, key := range m.CertificateSecrets {
		c.slots = append(c.slots, secrets.slot(key))
	}
	if m.ValidationSecret != "" {
		c.slots = append(c.slots, secrets.slot(m.ValidationSecret))
	}
	if len(c.slots) > 0 {
		return c, nil
	}
	config, err := build(m)
	c.built.Store(&built{config: config})
	return c, err
}

// withALPN returns a setting that differs in the application protocols.
func (c *setting) withALPN(protocols []string) *setting {
	m := *c.m
	m.ALPN = slices.Clone(protocols)
	out := &setting{m: &m, build: c.build, stats: c.stats, slots: c.slots}
	if b := c.built.Load(); len(c.slots) == 0 {
		config := b.config.Clone()
		config.NextProtos = m.ALPN
		out.built.Store(&built{config: config})
	}
	return out
}

// config returns what a handshake that begins now works with: errNotReady until all secrets are there.
func (c *setting) config() (*tls.Config, error) {
	if b := c.built.Load(); b != nil && c.current(b) {
		return b.config, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.built.Load()
	if old != nil && c.current(old) {
		return old.config, nil
	}
	now := &built{secrets: make([]*mesh.Secret, len(c.slots))}
	for i, s := range c.slots {
		if now.secrets[i] = s.now.Load(); now.secrets[i] == nil {
			return nil, errNotReady
		}
	}
	certificates, validation := now.secrets, (*mesh.Secret)(nil)
	if c.m.ValidationSecret != "" {
		last := len(now.secrets) - 1
		certificates, validation = now.secrets[:last], now.secrets[last]
	}
	whole, err := tlsconf.WithSecrets(c.m, certificates, validation)
	if err != nil {
		return nil, err
	}
	if now.config, err = c.build(whole); err != nil {
		return nil, err
	}
	c.built.Store(now)
	c.stats.Inc(0, metrics.TLSUpdatedBySDS)
	return now.config, nil
}

// current reports whether nothing has changed since b was made.
func (c *setting) current(b *built) bool {
	for i, s := range c.slots {
		if s.now.Load() != b.secrets[i] {
			return false
		}
	}
	return true
}
