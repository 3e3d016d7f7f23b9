// SPDX-License-Identifier: Apache-2.0

package app

import (
	"github.com/meshtap/meshtap/proxy/admin"
)

// runtime shows the runtime values.
func (a *App) runtime() *admin.Runtime {
	layers, entries := a.cfg.Runtime.Dump()
	out := &admin.Runtime{Layers: layers, Entries: make(map[string]admin.RuntimeEntry, len(entries))}
	for name, e := range entries {
		out.Entries[name] = admin.RuntimeEntry(e)
	}
	out.WithoutEffect, out.Unread = a.cfg.Runtime.Idle()
	return out
}

// modifyRuntime changes runtime values.
func (a *App) modifyRuntime(values map[string]string) error {
	if err := a.cfg.Runtime.Modify(values); err != nil {
		return &admin.Error{Status: 503, Msg: err.Error()}
	}
	return nil
}
