// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"

	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/xds"
)

// history lists the configurations that the manager keeps.
func (a *App) history() ([]admin.Past, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ask)
	defer cancel()
	list, err := a.manager.History(ctx)
	if err != nil {
		return nil, silent(err)
	}
	out := make([]admin.Past, 0, len(list))
	for _, p := range list {
		out = append(out, admin.Past{
			Snapshot: p.Snapshot, At: p.At, Listeners: p.Versions.Listeners, Routes: p.Versions.Routes, Clusters: p.Versions.Clusters,
			InForce: p.InForce, Held: p.Held, Changed: p.Changed, All: p.All,
		})
	}
	return out, nil
}

func (a *App) rollback(version string) error {
	ctx, cancel := context.WithTimeout(context.Background(), ask)
	defer cancel()
	return refused(a.manager.Rollback(ctx, version))
}

func (a *App) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), ask)
	defer cancel()
	return refused(a.manager.Release(ctx))
}

// refused is the answer to what the manager does not do.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, xds.ErrEnded):
		return silent(err)
	}
	return &admin.Error{Status: 400, Msg: err.Error() + "\n"}
}

// silent is the answer where the manager gives none.
func silent(err error) error {
	return &admin.Error{Status: 503, Msg: "the configuration manager does not answer: " + err.Error() + "\n"}
}
