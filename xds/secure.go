// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
)

// secure returns how TLS is spoken to a cluster of the bootstrap, for each connection anew: its files, and those of its
// secrets, may have changed. A moment at which they do not belong together must not cost the control plane, so the last that
// were good are used on.
func (s *Streams) secure(c bootstrap.Static, secrets planeSecrets) func(context.Context) (*tls.Config, error) {
	opt := s.b.Resource
	opt.RejectUnknown = false // what the bootstrap was allowed is not judged again
	decoder := resource.New(opt)
	read := func(ctx context.Context) (*tls.Config, error) {
		d, err := decoder.Decode(c.TypeURL, c.Raw, "")
		if err != nil {
			return nil, err
		}
		t, err := secrets.fill(ctx, d.Value.(*mesh.Cluster).TLS)
		if err != nil {
			return nil, err
		}
		return tlsconf.Client(t)
	}
	var mu sync.Mutex
	over, cancel := context.WithCancel(context.Background())
	cancel()              // other control planes are asked where a connection needs it
	last, _ := read(over) // and what is wrong is told there
	return func(ctx context.Context) (*tls.Config, error) {
		now, err := read(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err == nil || last == nil {
			last = now
			return now, err
		}
		s.log.Warn("the certificates of a control plane cannot be read anew; the last ones are used on",
			zap.String("cluster", c.Name), zap.Error(err))
		return last, nil
	}
}

// configClient adds where a gRPC client goes that has an address in place of a cluster, and how.
func (s *Streams) configClient(cfg ads.Config, src resource.Source) (ads.Config, error) {
	target, err := parseTarget(src.Target)
	if err != nil {
		return cfg, err
	}
	cfg.Targets = []ads.Target{target}
	if src.Secure != nil {
		cfg.Secure = func(context.Context) (*tls.Config, error) {
			c, err := src.Secure()
			if err != nil {
				return nil, fmt.Errorf("xds: the credentials of the control plane: %w", err)
			}
			c.ServerName = host(target)
			return c, nil
		}
	}
	if src.Tokens != nil {
		cfg.Tokens = func() (out []string, err error) {
			headers, err := src.Tokens()
			for _, h := range headers {
				out = append(out, h.Name, h.Value)
			}
			return out, err
		}
	}
	return cfg, nil
}

// host is the name that a certificate has to be for, as gRPC has it.
func host(t ads.Target) string {
	if t.Network == "unix" {
		return "localhost"
	}
	name, _, err := net.SplitHostPort(t.Address)
	if err != nil {
		return t.Address
	}
	return name
}
