// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
)

// together checks what no resource can know alone: that names and addresses are not taken, and that what they name is
// there or can come.
func (l *loader) together() {
	clusters := l.names("static_resources.clusters", "cluster", l.config.Clusters)
	l.names("static_resources.listeners", "listener", l.config.Listeners)
	l.names("static_resources.secrets", "secret", l.config.Secrets)
	l.addresses()
	l.planeSecrets()
	if l.config.Dynamic == nil || l.config.Dynamic.Clusters == nil {
		l.references(clusters)
	}
	if len(l.config.Listeners) == 0 && (l.config.Dynamic == nil || l.config.Dynamic.Listeners == nil) && l.report.Errors() == 0 {
		l.report.warn(position{file: l.report.File}, "", "there is no listener and none can come, so nothing will be served")
	}
}

// fail reports an error at a field.
func (l *loader) fail(path, msg, hint string) {
	l.report.fail(l.doc.place(path), path, sentence(path, msg), hint)
}

// names checks that names are given once, and returns them.
func (l *loader) names(path, what string, list []Static) map[string]bool {
	names := map[string]bool{}
	for i, r := range list {
		if r.Name != "" && names[r.Name] {
			p := fmt.Sprintf("%s[%d].name", path, i)
			l.fail(p, fmt.Sprintf("there are two %ss with the name %q", what, r.Name), "")
		}
		names[r.Name] = true
	}
	return names
}

// addresses checks that no two listeners have the same address, even if one does not bind it: connections are handed
// over by address.
func (l *loader) addresses() {
	seen := map[mesh.Address]string{}
	for i, r := range l.config.Listeners {
		v, ok := r.Value.(*mesh.Listener)
		if !ok || v.Address.Pipe == "" && v.Address.IP.Port() == 0 {
			continue
		}
		if other, taken := seen[v.Address]; taken {
			p := fmt.Sprintf("static_resources.listeners[%d].address", i)
			l.fail(p, fmt.Sprintf("listener %q already has the address %s", other, v.Address), "")
		}
		seen[v.Address] = v.Name
	}
}

// references checks the clusters that listeners name. Envoy refuses a route to a cluster that is not there, unless
// validate_clusters is false; it accepts a TCP proxy to one, which then closes its connections.
func (l *loader) references(clusters map[string]bool) {
	for i, r := range l.config.Listeners {
		lp := fmt.Sprintf("static_resources.listeners[%d]", i)
		unchecked := l.where(lp, "false", ".validate_clusters") != lp
		for _, name := range r.Refs.Clusters {
			if clusters[name] {
				continue
			}
			p := l.where(lp, name, ".cluster", ".name")
			msg := fmt.Sprintf("there is no cluster %q, and none can come: there is no cds_config", name)
			hint := ""
			if near := nearest.Name(name, slices.Sorted(maps.Keys(clusters))); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			if unchecked || !strings.Contains(p, "virtual_hosts") {
				l.report.warn(l.doc.place(p), p, strings.TrimSpace(msg+"  "+hint))
				continue
			}
			l.fail(p, msg, hint)
		}
	}
}

// where returns the first path under a prefix that ends in one of the suffixes and holds a text, or the prefix.
func (l *loader) where(prefix, text string, suffixes ...string) string {
	best := ""
	for path, t := range l.doc.texts {
		if t != text || !strings.HasPrefix(path, prefix+".") {
			continue
		}
		for _, s := range suffixes {
			if strings.HasSuffix(path, s) && (best == "" || before(l.doc.places[path], l.doc.places[best])) {
				best = path
			}
		}
	}
	return orElse(best, prefix)
}

func before(a, b position) bool {
	return a.line < b.line || a.line == b.line && a.column < b.column
}

// lint reports where a default applies that a reader of the file may not expect.
func (l *loader) lint() {
	for i, r := range l.config.Clusters {
		m := l.config.Bootstrap.GetStaticResources().GetClusters()[i]
		own := func(s *resource.Source) bool { return s.Cluster == r.Name }
		if m.GetCircuitBreakers() != nil || r.Value == nil || slices.ContainsFunc(l.config.Dynamic.sources(), own) {
			continue
		}
		p := fmt.Sprintf("static_resources.clusters[%d]", i)
		l.report.warn(l.doc.place(p), p, fmt.Sprintf("no circuit_breakers on cluster %q; defaults apply: 1024 connections, "+
			"1024 pending, 1024 requests, retries 20 %% of the requests in flight but at least 3", r.Name))
	}
}
