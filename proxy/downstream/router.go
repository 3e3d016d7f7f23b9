// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"sync/atomic"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/forward"
)

// discoveredRouter is a router whose configuration comes by itself (ECDS). A request has the one that is in force when the
// filters before it are done.
type discoveredRouter struct {
	// Immutable.
	config   func() *mesh.Extension
	fallback *mesh.Extension // nil where there is none
	build    func(mesh.Router) *forward.Router

	now atomic.Pointer[builtRouter]
}

// builtRouter is a router with the configuration that had come when it was built; nil where that was the default's.
type builtRouter struct {
	config *mesh.Extension
	router *forward.Router
}

// router returns what is in force, nil where nothing has come and there is no default.
func (d *discoveredRouter) router() *forward.Router {
	c := d.config()
	if v := d.now.Load(); v != nil && v.config == c {
		return v.router
	}
	options, ok := optionsOf(c)
	if !ok {
		if options, ok = optionsOf(d.fallback); !ok {
			return nil
		}
	}
	v := &builtRouter{c, d.build(options)}
	d.now.Store(v)
	return v.router
}

// optionsOf returns the options of a router; ok is false for nil, and where others that name it let it be something else.
func optionsOf(c *mesh.Extension) (options mesh.Router, ok bool) {
	if c != nil {
		options, ok = c.Config.(mesh.Router)
	}
	return options, ok
}

// routing returns the router for a request, nil where its configuration has not come.
func (m *Manager) routing() *forward.Router {
	if m.discovered != nil {
		return m.discovered.router()
	}
	return m.router
}
