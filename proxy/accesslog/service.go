// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/mesh"
)

// ServiceConfig is the configuration of a logger that sends entries to an access log service.
type ServiceConfig struct {
	als.Config
	Extra als.Extra
}

// service is such a logger.
type service struct {
	client *als.Client
	extra  als.Extra
}

func newService(config any, deps Deps) (Logger, error) {
	if deps.Services == nil {
		return nil, errors.New("there are no access log services here")
	}
	c := config.(ServiceConfig)
	return &service{deps.Services.Share(c.Config), c.Extra}, nil
}

// Observe makes the entry and hands it to the client, which never waits.
func (s *service) Observe(o *mesh.Outcome) { s.client.Log(o, &s.extra) }

// Close gives the client back.
func (s *service) Close() { s.client.Release() }
