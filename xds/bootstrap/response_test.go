// SPDX-License-Identifier: Apache-2.0

package bootstrap_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
)

const responseText = `version_info: "1"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: plain
  connectTimeout: 1s
- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
  name: wrapped
  resource:
    "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
    name: wrapped
    lb_policy: RANDOM
`

// A file of resources is read as Envoy does, and knows where each field stands.
func TestReadResponse(t *testing.T) {
	t.Parallel()
	r, err := bootstrap.ReadResponse("f.yaml", []byte(responseText), true)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Message; m.GetVersionInfo() != "1" || len(m.GetResources()) != 2 || resource.Name(m.GetResources()[0].GetValue()) != "plain" {
		t.Errorf("got %v", m)
	}
	for _, tt := range []struct {
		i          int
		path, want string
	}{
		{0, "connect_timeout", "f.yaml:5:19"},
		{0, "", "f.yaml:3:3"},
		{0, "lb_policy", "f.yaml:3:3"}, // it is not there: the resource is
		{1, "lb_policy", "f.yaml:11:16"},
		{7, "name", "f.yaml:2:1"},
	} {
		if got := r.Place(tt.i, tt.path); got != tt.want {
			t.Errorf("%s of resource %d is at %s, want %s", tt.path, tt.i, got, tt.want)
		}
	}
	json := `{"version_info": "1", "resources": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a"}]}`
	if r, err := bootstrap.ReadResponse("f.json", []byte(json), true); err != nil || len(r.Message.GetResources()) != 1 {
		t.Errorf("JSON: %v, error %v", r, err)
	}
}

// What cannot be read is named with its place, the first thing of it in one line.
func TestReadResponseNamesPlaces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "f.yaml:1:1: the text holds no configuration"},
		{"no YAML", "a: [", "f.yaml:1:"},
		{"a misspelt field", "resource: []", "f.yaml:1:1: "},
		{"a misspelt field of a resource", strings.Replace(responseText, "connectTimeout", "connect_timout", 1), `f.yaml:5:3: `},
		{"a value", strings.Replace(responseText, "RANDOM", "RANDM", 1), "f.yaml:11:16: "},
		{"no type", "resources: [{name: a}]", "f.yaml:1:13: "},
		{"values without end", "resources: [{\"@type\": a/b, v: &v [*v, *v]}]", "f.yaml: there are more than 1048576 values"},
		{"two things", "resources: [{name: a}, {name: b}]", "(and 1 more)"},
	} {
		_, err := bootstrap.ReadResponse("f.yaml", []byte(tt.text), true)
		var invalid *bootstrap.Invalid
		if !errors.As(err, &invalid) || !strings.Contains(invalid.Summary(), tt.want) || strings.Contains(invalid.Summary(), "\n") {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	r, err := bootstrap.ReadResponse("f.yaml", []byte("resources: []\nresource: []"), false)
	if err != nil || len(r.Warnings) != 1 || r.Warnings[0].Line != 2 {
		t.Errorf("an unknown field that is allowed: %+v, error %v", r, err)
	}
}

// FuzzReadResponse: no text of a file makes the reader fail otherwise than with places, and what it reads is a message.
func FuzzReadResponse(f *testing.F) {
	f.Add([]byte(responseText), 0, "connect_timeout")
	f.Add([]byte("resources: {\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener}"), 1, "a[0].b")
	f.Add([]byte("&a [*a]"), -1, "")
	files, err := filepath.Glob("../../configs/xds-files/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 0, "filter_chains[0].filters")
	}
	f.Fuzz(func(t *testing.T, text []byte, i int, path string) {
		r, err := bootstrap.ReadResponse("f.yaml", text, i%2 == 0)
		if err != nil {
			var invalid *bootstrap.Invalid
			if !errors.As(err, &invalid) || invalid.Summary() == "" || invalid.Report.Errors() == 0 {
				t.Errorf("error %v", err)
			}
			return
		}
		if _, err := proto.Marshal(r.Message); err != nil {
			t.Error(err)
		}
		if at := r.Place(max(i, 0), path); !strings.HasPrefix(at, "f.yaml") {
			t.Errorf("the place is %q", at)
		}
	})
}
