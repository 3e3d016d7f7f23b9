// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// scopesFor are scopes by the header "x-scope": "a" leads to a table by name, "b" to one of its own, "c" to one that is not
// there.
func scopesFor(t testing.TB) *mesh.ScopeSet {
	return &mesh.ScopeSet{Scopes: []*mesh.Scope{
		{Name: "A", Fragments: []string{"a"}, RouteTable: "routes"},
		{Name: "B", Fragments: []string{"b"}, Routes: tableFor(t, "own", "*").Config},
		{Name: "C", Fragments: []string{"c"}, RouteTable: "nowhere"},
	}}
}

// The scope of a request picks its table, whether the scopes stand in the configuration or come to it; without one there is
// no route. A header that the connection manager removes is no key.
func TestScoped(t *testing.T) {
	t.Parallel()
	for _, written := range []bool{true, false} {
		t.Run(fmt.Sprint("written ", written), func(t *testing.T) {
			t.Parallel()
			scoped := &mesh.ScopedRoutes{Name: "scopes", Fragments: []mesh.ScopeFragment{{Header: "x-scope"}}, Set: "set"}
			if written {
				scoped.Scopes = scopesFor(t)
			}
			r := start(t, setup{manager: mesh.HTTPManager{Scoped: scoped}})
			state := later{tables: map[string]*Table{"routes": tableFor(t, "named", "*")}}
			if !written {
				s, err := NewScopes(scopesFor(t))
				if err != nil {
					t.Fatal(err)
				}
				state.scopes = s
			}
			r.now.Store(&pin{state})
			ask := func(fields string) string {
				return r.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + fields + "\r\n")
			}
			for i, c := range []struct{ fields, status, table string }{
				{"x-scope: a\r\n", "200", "named"},
				{"x-scope: b\r\n", "200", "own"},
				{"x-scope: c\r\n", "404", ""},
				{"x-scope: d\r\n", "404", ""},
				{"", "404", ""},
			} {
				got := ask(c.fields)
				o := r.wait(i + 1)[i]
				if statusOf(got) != c.status || o.RouteTable != c.table || (c.status == "404") != (o.Flags == mesh.FlagNR) {
					t.Errorf("%q: %q, table %q, flags %v", c.fields, got, o.RouteTable, o.Flags)
				}
			}
			// The table of the first look removes the header from external requests, so that the second finds nothing.
			internal := tableFor(t, "named", "*")
			internal.Config.InternalOnlyHeaders = []string{"x-scope"}
			state.tables = map[string]*Table{"routes": internal}
			r.now.Store(&pin{state})
			if got := ask("x-scope: a\r\n"); statusOf(got) != "404" {
				t.Errorf("a header that is removed: %q", got)
			}
		})
	}
}

func TestScopesThatCannotBe(t *testing.T) {
	t.Parallel()
	bad := &mesh.ScopeSet{Scopes: []*mesh.Scope{{Name: "A", Fragments: []string{"a"}, Routes: &mesh.RouteTable{
		Hosts: []*mesh.VirtualHost{{Domains: []string{"a"}}, {Domains: []string{"a"}}},
	}}}}
	if _, err := NewScopes(bad); err == nil || !strings.Contains(err.Error(), `scope "A"`) {
		t.Errorf("error %v", err)
	}
}
