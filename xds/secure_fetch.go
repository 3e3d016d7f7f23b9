// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"context"
	"fmt"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/resource"
)

// fetch asks another control plane for a secret, over a stream that ends once the secret is there: each connection asks anew,
// so what has been rotated is used by the next one. It is bounded by initial_fetch_timeout, and where that is 0 by the default,
// since whoever calls tries again and has then told what is missing.
func (s *Streams) fetch(ctx context.Context, cfg ads.Config, src resource.Source, name string) (*mesh.Secret, error) {
	wait := cmp.Or(src.FetchTimeout, DefaultFetchTimeout)
	ctx, cancel := context.WithTimeout(ctx, wait)
	client := ads.New(cfg, s.log)
	client.Subscribe(resource.SecretType, []string{name}, nil)
	events, ended := make(chan ads.Event), make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Run(ctx, events) // nil where ctx ends, as it does below
	}()
	defer func() {
		cancel()
		<-ended
	}()
	why := "has not come"
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("xds: the secret %q of %s %s (waited for %s)", name, src, why, wait)
		case ev := <-events:
			switch ev := ev.(type) {
			case ads.Disconnected:
				return nil, fmt.Errorf("xds: the secret %q of %s %s: %w", name, src, why, ev.Err)
			case ads.Response:
				secret, err := s.secretIn(ev, name)
				switch {
				case err != nil:
					why = "is refused: " + err.Error()
					client.Nack(resource.SecretType, ev.Nonce, "", err.Error(), []string{name})
				case secret != nil:
					return secret, nil
				default:
					client.Ack(resource.SecretType, ev.Nonce, ev.Version)
				}
			}
		}
	}
}

// secretIn reads a secret of a response, nil where it is not there.
func (s *Streams) secretIn(r ads.Response, name string) (*mesh.Secret, error) {
	for _, res := range r.Resources {
		if cmp.Or(res.Name, resource.Name(res.Bytes)) != name {
			continue
		}
		if res.TypeURL != resource.SecretType {
			return nil, fmt.Errorf("%q is a %s; a %s is needed", name, res.TypeURL, resource.SecretType)
		}
		d, err := resource.New(s.b.Resource).Decode(res.TypeURL, res.Bytes, "")
		if err != nil {
			return nil, err
		}
		return d.Value.(*mesh.Secret), nil
	}
	return nil, nil
}
