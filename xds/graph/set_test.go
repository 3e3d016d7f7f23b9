// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// Sets in scripts. A listener chooses among scopes with the word "srds", or "srds(TABLES|SCOPES)" for two sources; a table
// takes virtual hosts with "vhds" or "vhds(SOURCE)". "srds" and "vhds" are responses of SCOPE:KEY,TABLE and of
// TABLE/HOST:DOMAIN,CLUSTER...; "d=DOMAIN" in a table is a domain of its own.

// wantSet makes a resource name a set, where a word is such a name.
func wantSet(r *Resource, w string) bool {
	word, arg, _ := strings.Cut(strings.TrimSuffix(w, ")"), "(")
	switch word {
	case "srds":
		tables, scopes, _ := strings.Cut(arg, "|")
		r.Scopes = append(r.Scopes, sourcekey.Join(tables, scopes))
	case "vhds":
		r.HostSet = sourcekey.Join(r.Name, arg)
	default:
		return false
	}
	return true
}

// parseMember makes a scope or a virtual host of the words of a token.
func parseMember(r *Resource, kind string, words []string) {
	if kind == "srds" {
		r.Value = &mesh.Scope{Name: r.Name, Fragments: words[:1], RouteTable: words[1]}
		return
	}
	r.Value = &mesh.VirtualHost{Name: r.Name, Domains: words[:1]}
	r.Clusters = words[1:]
}

// parseTable makes a route table of the words of a token.
func parseTable(r *Resource, words []string) {
	t := &mesh.RouteTable{Name: r.Name}
	for _, w := range words {
		if d, ok := strings.CutPrefix(w, "d="); ok {
			t.Hosts = append(t.Hosts, &mesh.VirtualHost{Name: "own", Domains: []string{d}})
		} else if !wantSet(r, w) {
			r.Clusters = append(r.Clusters, w)
		}
	}
	t.HostSet = r.HostSet
	r.Value = t
}

// setsText is the sets of a snapshot, a line for each that is another than before.
func setsText(now, old *mesh.Snapshot) string {
	var b strings.Builder
	line := func(kind, key string, now, old any, members []string) {
		star := ""
		if now != old {
			star = "*"
		}
		fmt.Fprintf(&b, "    %s %s%s: %s\n", kind, strings.ReplaceAll(key, "\x00", "|"), star, strings.Join(members, " "))
	}
	for _, key := range slices.Sorted(maps.Keys(now.ScopeSets)) {
		var members []string
		for _, s := range now.ScopeSets[key].Scopes {
			members = append(members, fmt.Sprintf("%s(%s)>%s", s.Name, strings.Join(s.Fragments, ","), keyText(s.RouteTable)))
		}
		line("scopes", key, now.ScopeSets[key], old.ScopeSets[key], members)
	}
	for _, key := range slices.Sorted(maps.Keys(now.HostSets)) {
		var members []string
		for _, h := range now.HostSets[key].Hosts {
			members = append(members, fmt.Sprintf("%s(%s)", h.Name, strings.Join(h.Domains, ",")))
		}
		line("hosts of", key, now.HostSets[key], old.HostSets[key], members)
	}
	return b.String()
}
