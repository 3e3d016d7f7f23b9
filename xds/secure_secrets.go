// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/file"
	"github.com/meshtap/meshtap/xds/resource"
)

// planeSecrets are the secrets that the cluster of a control plane names, by their keys. Each is read where it comes from, and
// with the files that it names, for each connection.
type planeSecrets map[string]func(context.Context) (*mesh.Secret, error)

// secretsOf returns the secrets of a cluster, without having read them.
func (s *Streams) secretsOf(c bootstrap.Static, t *mesh.TLSContext) (planeSecrets, error) {
	out := planeSecrets{}
	for _, key := range slices.Concat(t.CertificateSecrets, []string{t.ValidationSecret}) {
		if key == "" {
			continue
		}
		src, err := s.b.SecretSource(c, key)
		if err != nil {
			return nil, fmt.Errorf("xds: the control plane's cluster %q: %w", c.Name, err)
		}
		name := sourcekey.Name(key)
		switch {
		case src.ID == "":
			out[key] = func(context.Context) (*mesh.Secret, error) { return s.staticSecret(name) }
		case src.Variant == resource.File:
			out[key] = func(context.Context) (*mesh.Secret, error) { return s.secretFrom(src, name) }
		default:
			cfg, err := s.single(src)
			if err != nil {
				return nil, err
			}
			out[key] = func(ctx context.Context) (*mesh.Secret, error) { return s.fetch(ctx, cfg, src, name) }
		}
	}
	return out, nil
}

// fill puts the secrets in the place of their names.
func (p planeSecrets) fill(ctx context.Context, t *mesh.TLSContext) (*mesh.TLSContext, error) {
	var certificates []*mesh.Secret
	for _, key := range t.CertificateSecrets {
		c, err := p[key](ctx)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	var validation *mesh.Secret
	if t.ValidationSecret != "" {
		var err error
		if validation, err = p[t.ValidationSecret](ctx); err != nil {
			return nil, err
		}
	}
	return tlsconf.WithSecrets(t, certificates, validation)
}

// staticSecret reads a secret of the bootstrap. The bootstrap has been accepted, so it is there.
func (s *Streams) staticSecret(name string) (*mesh.Secret, error) {
	i := slices.IndexFunc(s.b.Secrets, func(x bootstrap.Static) bool { return x.Name == name })
	opt := s.b.Resource
	opt.RejectUnknown = false
	d, err := resource.New(opt).Decode(resource.SecretType, s.b.Secrets[i].Raw, "")
	if err != nil {
		return nil, fmt.Errorf("static_resources.secrets: %w", err)
	}
	return d.Value.(*mesh.Secret), nil
}

// secretFrom reads a secret from a file of resources.
func (s *Streams) secretFrom(src resource.Source, name string) (*mesh.Secret, error) {
	_, text, err := file.Open(file.Config{Path: src.Path, MaxBytes: src.MaxMessageBytes}, s.log)
	if err != nil {
		return nil, err
	}
	r, err := bootstrap.ReadResponse(src.Path, text, s.b.Resource.RejectUnknown)
	var invalid *bootstrap.Invalid
	if errors.As(err, &invalid) {
		err = errors.New(invalid.Summary())
	}
	if err != nil {
		return nil, err
	}
	for i, a := range r.Message.GetResources() {
		res := unwrapped(a)
		if resource.Name(res.Bytes) != name {
			continue
		}
		if res.TypeURL != resource.SecretType {
			return nil, fmt.Errorf("%s: %q is a %s; a %s is needed", r.Place(i, ""), name, res.TypeURL, resource.SecretType)
		}
		d, err := resource.New(s.b.Resource).Decode(res.TypeURL, res.Bytes, "")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Place(i, ""), err)
		}
		return d.Value.(*mesh.Secret), nil
	}
	return nil, fmt.Errorf("%s has no secret %q", src.Path, name)
}
