// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/file"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/resource"
)

// inForce is a secret that the proxy has. It belongs to the loop.
type inForce struct {
	secret *mesh.Secret
	// forget ends the watches of its files.
	forget context.CancelFunc
}

// setPart hands a secret, or the configuration of a filter, on.
func (m *Manager) setPart(ctx context.Context, a graph.SetPart) {
	p := part{a.Kind, a.Key}
	switch v := a.Value.(type) {
	case *mesh.Secret:
		delete(m.parked, p)
		m.deps.SetSecret(a.Key, v)
		m.follow(ctx, a.Key, v)
	case *mesh.Extension:
		delete(m.parked, p)
		if later := m.history.setFilter(a.Key, v); !later {
			m.deps.SetExtension(a.Key, v)
		}
	case nil:
		if old, had := m.secrets[a.Key]; had && a.Kind == mesh.KindSecret {
			old.forget()
			delete(m.secrets, a.Key)
		}
		m.history.setFilter(a.Key, nil)
		m.drop(p)
	}
}

// follow watches the files that a secret was read from, and tells of one that took the place of another.
func (m *Manager) follow(ctx context.Context, key string, now *mesh.Secret) {
	if old, had := m.secrets[key]; had {
		m.rotated(old.secret, now)
		if slices.Equal(old.secret.Files, now.Files) && old.secret.Watched == now.Watched {
			m.secrets[key] = inForce{now, old.forget}
			return
		}
		old.forget()
	}
	ctx, cancel := context.WithCancel(ctx)
	m.secrets[key] = inForce{now, cancel}
	if sourcekey.Source(key) == sourcekey.Static {
		return // as in Envoy
	}
	for _, path := range now.Files {
		m.watchFile(ctx, key, file.Config{Path: path, Watched: now.Watched})
	}
}

// watchFile tells the loop of each change of a secret's file. A file that is away for a moment changes nothing.
func (m *Manager) watchFile(ctx context.Context, key string, cfg file.Config) {
	tell := func(_ []byte, err error) {
		if err != nil {
			m.log.Warn("a file of a secret cannot be read; what came from it last stays in force",
				zap.String("secret", sourcekey.Name(key)), zap.String("file", cfg.Path), zap.Error(err))
			return
		}
		select {
		case m.changed <- key:
		case <-ctx.Done():
		}
	}
	m.wg.Go(func() {
		if err := file.New(cfg, m.log).Run(ctx, tell); err != nil {
			m.log.Error("a file of a secret is not watched any more", zap.String("secret", sourcekey.Name(key)),
				zap.String("file", cfg.Path), zap.Error(err))
		}
	})
}

// reload reads a secret again, since one of its files has changed. Where the others have not followed yet, what does not
// fit together is refused, and the change of the last one reads them once more.
func (m *Manager) reload(ctx context.Context, key string) {
	last, now := m.known[mesh.KindSecret][key], m.secrets[key].secret
	if last == nil || now == nil {
		return
	}
	fresh := *last
	fresh.At = time.Now()
	d, err := m.deps.Decoder.Decode(resource.SecretType, last.Raw, last.Version)
	if err != nil {
		m.numbers.rotationFailed(key)
		b := bad(0, last.Name, last.Raw, err, nil)
		m.step(ctx, graph.Reload{Resource: &fresh, Bad: &b})
		return
	}
	secret := d.Value.(*mesh.Secret)
	if sameSecret(secret, now) {
		return
	}
	fresh.Value = secret
	m.known[mesh.KindSecret][key] = &fresh
	m.step(ctx, graph.Reload{Resource: &fresh})
}

// sameSecret says whether two secrets that were read from one resource hold the same.
func sameSecret(a, b *mesh.Secret) bool {
	if a.Type() != b.Type() {
		return false
	}
	if a.Certificate == nil {
		return sameCertificates(a.Validation.Roots, b.Validation.Roots)
	}
	key, ok := a.Certificate.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b.Certificate.Key.Public()) && sameCertificates(a.Certificate.Chain, b.Certificate.Chain)
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
}

// rotated tells observers that a certificate, or authorities, were replaced.
func (m *Manager) rotated(old, now *mesh.Secret) {
	if sameSecret(old, now) {
		return
	}
	n := certs.Notice(certs.First(now))
	n.Secret, n.Type, n.OldSerial = now.Name, now.Type(), certs.Serial(certs.First(old))
	m.deps.Notifier.Notify(&mesh.Notice{Kind: mesh.NoticeCertificateRotated, Time: time.Now().UnixNano(), Certificate: &n})
	m.log.Info("certificate rotated", zap.String("secret", n.Secret), zap.Stringer("type", n.Type), zap.String("serial", n.Serial),
		zap.String("old_serial", n.OldSerial), zap.Time("not_after", time.Unix(0, n.NotAfter).UTC()))
}

// keysOf are the keys of the resources of a response.
func keysOf(r graph.Response) []string {
	var out []string
	for _, res := range r.Resources {
		out = append(out, res.Name)
	}
	for _, b := range r.Bad {
		out = append(out, b.Name)
	}
	return out
}
