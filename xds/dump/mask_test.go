// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/fakexds"
)

// leaves lists the paths of the fields of a dump, without indices, each once.
func leaves(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				if k == "@type" {
					e = e.(string)[strings.LastIndexByte(e.(string), '.')+1:]
					found[fmt.Sprintf("%s@%s", path, e)] = true
					continue
				}
				walk(strings.TrimPrefix(path+"."+k, "."), e)
			}
		case []any:
			for _, e := range v {
				walk(path, e)
			}
		default:
			found[path] = true
		}
	}
	walk("", v)
	var out []string
	for path := range found {
		out = append(out, strings.TrimPrefix(path, "configs."))
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

// TestMask: answers are Envoy's, whose handling of masks is read off version 1.40.
func TestMask(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ part, mask, want string }{
		{"", "bootstrap.node.id", "bootstrap.node.id configs@BootstrapConfigDump"},
		{"", "version_info", "configs@ClustersConfigDump configs@ListenersConfigDump version_info"},
		{"", "static_clusters,version_info", "configs@ClustersConfigDump static_clusters.cluster.connect_timeout"},
		{"", "dynamic_listeners.name", "400 FieldMask dynamic_listeners.name could not be successfully applied to any configs."},
		{"", "foo.bar", "400 FieldMask foo.bar could not be successfully applied to any configs."},
		{"", "a..b", "400 FieldMask a..b could not be successfully applied to any configs."},
		{"", "static_listeners,bootstrap.admin", "400 FieldMask static_listeners,bootstrap.admin could not be successfully applied to any configs."},
		{"dynamic_active_clusters", "cluster.name", "cluster.name cluster@Cluster configs@DynamicCluster"},
		{"dynamic_active_clusters", "cluster.name,cluster.connect_timeout,version_info",
			"cluster.connect_timeout cluster.name cluster@Cluster configs@DynamicCluster version_info"},
		{"dynamic_active_clusters", "last_updated", "configs@DynamicCluster last_updated"},
		{"dynamic_active_clusters", "foo", "400 FieldMask paths: \"foo\"\n could not be successfully used."},
		{"dynamic_active_clusters", "cluster.load_assignment.endpoints.locality",
			"400 FieldMask paths: \"cluster.load_assignment.endpoints.locality\"\n could not be successfully used."},
		{"bootstrap", "node", "400 bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field\n"},
		{"nope", "", "404 nope not found in config dump; there are static_clusters"},
	} {
		t.Run(c.part+" "+c.mask, func(t *testing.T) {
			t.Parallel()
			b, err := Render(input(t), Options{Redactor: NewRedactor([]byte("key")), Part: c.part, Mask: c.mask})
			var query *QueryError
			got := ""
			switch {
			case errors.As(err, &query):
				got = fmt.Sprint(query.Status, " ", query.Msg)
			case err != nil:
				t.Fatal(err)
			default:
				got = leaves(t, b)
			}
			if !strings.HasPrefix(got, c.want) && !(c.part == "" && strings.Contains(got, c.want)) {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestMaskKeepsWhole: a mask that names a field and parts of it shows all of it, and the resource itself is not changed.
func TestMaskKeepsWhole(t *testing.T) {
	t.Parallel()
	c := fakexds.StaticCluster("a", one)
	for _, text := range []string{"load_assignment.cluster_name,load_assignment", "load_assignment,load_assignment.cluster_name"} {
		out, ok := parseMask(text).trim(c)
		if !ok || !strings.Contains(fmt.Sprint(out), "endpoints") || strings.Contains(fmt.Sprint(out), "connect_timeout") {
			t.Errorf("%s: %v", text, out)
		}
	}
	if c.GetName() != "a" {
		t.Error("the resource was changed")
	}
}

// FuzzMask: no mask makes it fail in another way than by saying so, nor shows what is hidden.
func FuzzMask(f *testing.F) {
	for _, s := range []string{"bootstrap", "bootstrap.node", "static_clusters,dynamic_active_clusters", "cluster.name", ",.,"} {
		f.Add("", s)
		f.Add("dynamic_active_clusters", s)
	}
	f.Fuzz(func(t *testing.T, part, mask string) {
		in := input(t)
		in.Clusters = append(in.Clusters, Entry{Name: "tls", Live: came(t, "1", secretCluster(t))})
		b, err := Render(in, Options{Redactor: NewRedactor([]byte("key")), Part: part, Mask: mask})
		var query *QueryError
		if err != nil && !errors.As(err, &query) {
			t.Error(err)
		}
		if strings.Contains(string(b), planted) {
			t.Errorf("%q shows a secret", mask)
		}
	})
}
