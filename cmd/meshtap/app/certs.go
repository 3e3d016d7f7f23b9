// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"time"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/mesh"
)

// certificatesEvery is how often the certificates in force are looked at for their end.
const certificatesEvery = time.Minute

// certificates returns what is in force.
func (a *App) certificates() []certs.Use {
	return certs.InForce(a.server.Snapshot(), a.server.Secrets())
}

// watchCertificates tells of certificates whose time is nearly over, until ctx ends.
func (a *App) watchCertificates(ctx context.Context) {
	w := certs.Watch{Within: certs.DefaultWithin}
	tick := time.NewTicker(certificatesEvery)
	defer tick.Stop()
	ready := a.manager.Ready()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ready: // at once, and not again
			ready = nil
		case <-tick.C:
		}
		now := time.Now()
		for _, n := range w.Due(now, a.certificates()) {
			a.Notify(&mesh.Notice{Kind: mesh.NoticeCertificateExpiring, Time: now.UnixNano(), Certificate: &n})
		}
	}
}
