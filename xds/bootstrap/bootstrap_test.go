// SPDX-License-Identifier: Apache-2.0

package bootstrap_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

func load(t *testing.T, text string) (*bootstrap.Config, error) {
	t.Helper()
	return bootstrap.Load(bootstrap.Options{YAML: text, Parsers: resourcetest.Parsers(), Version: "1.0"})
}

func TestFieldsCoverEveryMessage(t *testing.T) {
	t.Parallel()
	if missing := bootstrap.Fields().Uncovered(&bootstrapv3.Bootstrap{}); len(missing) > 0 {
		t.Errorf("no rules for %v", missing)
	}
}

func TestInvalidIsTyped(t *testing.T) {
	t.Parallel()
	_, err := load(t, "nod: {}")
	var invalid *bootstrap.Invalid
	if !errors.As(err, &invalid) || invalid.Report.Errors() != 1 {
		t.Fatalf("got %v", err)
	}
	i := invalid.Report.Issues[0]
	if i.Line != 1 || i.Column != 1 || i.File != "--config-yaml" || i.Hint != `did you mean "node"?` {
		t.Errorf("got %+v", i)
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	r := bootstrap.Validate(bootstrap.Options{
		YAML:    "node: {idd: <a>}\nstatic_resources: {clusters: [{name: a}]}",
		Parsers: resourcetest.Parsers(),
	})
	b, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		APIVersion       string
		File             string
		Valid            bool
		Errors, Warnings int
		Issues           []struct {
			File, Severity, Path, Message, Hint string
			Line, Column                        int
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.APIVersion != "meshtap/v1" || got.Valid || got.Errors != 1 || got.Warnings != 1 || len(got.Issues) != 2 {
		t.Fatalf("got %s", b)
	}
	first := got.Issues[0]
	if first.Severity != "error" || first.Path != "node.idd" || first.Line != 1 || first.Column != 8 ||
		first.Message != `unknown field "idd" in node` || first.Hint != `did you mean "id"?` {
		t.Errorf("got %+v", first)
	}
}

func TestReportJSONOfGood(t *testing.T) {
	t.Parallel()
	r := bootstrap.Validate(bootstrap.Options{YAML: "node: {id: a}", Parsers: resourcetest.Parsers()})
	b, err := r.JSON()
	if err != nil || !strings.Contains(string(b), `"valid": true`) {
		t.Errorf("got %s, %v", b, err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := filepath.Join(dir, "long.yaml")
	if err := os.WriteFile(long, []byte("# "+strings.Repeat("x", 16<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opt  bootstrap.Options
		want string
	}{
		"long":      {bootstrap.Options{Path: long}, "are more than the 16777216 allowed"},
		"missing":   {bootstrap.Options{Path: filepath.Join(dir, "none.yaml")}, "no such file"},
		"directory": {bootstrap.Options{Path: dir}, "is a directory"},
		"deep JSON": {bootstrap.Options{YAML: nested(`{"a":`, "}")}, "unknown field"},
		"deep list": {bootstrap.Options{YAML: "node: {metadata: {a: " + nested("[", "]") + "}}"}, "nested more than 100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.opt.Parsers = resourcetest.Parsers()
			_, err := bootstrap.Load(c.opt)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func nested(begin, end string) string {
	return strings.Repeat(begin, 200) + "1" + strings.Repeat(end, 200)
}

// TestManyWarningsHideNoError proves that an error counts behind more warnings than are kept.
func TestManyWarningsHideNoError(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("static_resources: {clusters: [")
	for i := range 1500 {
		fmt.Fprintf(&b, "{name: c%d, dns_jitter: 1s}, ", i)
	}
	b.WriteString("{name: last, lb_policy: MAGLEV}]}")
	_, err := load(t, b.String())
	if err == nil || !strings.Contains(err.Error(), "MAGLEV is not supported") ||
		!strings.Contains(err.Error(), "1 error, 1500 warnings") {
		t.Errorf("got %.200v", err)
	}
}

// TestStaticResources proves that static resources are marked and keep their serialized form.
func TestStaticResources(t *testing.T) {
	t.Parallel()
	c, err := load(t, "static_resources: {clusters: [{name: a}]}")
	if err != nil {
		t.Fatal(err)
	}
	s := c.Clusters[0]
	if v := s.Value.(*mesh.Cluster); !v.Static || v.Version != "" {
		t.Errorf("static %v, version %q", v.Static, v.Version)
	}
	again, err := resource.New(c.Resource).Decode(s.TypeURL, s.Raw, "")
	if err != nil || again.Name != "a" {
		t.Errorf("the serialized form does not decode: %v", err)
	}
	if again.Value.(*mesh.Cluster).Static {
		t.Error("what the control plane sends would be marked as static")
	}
}

// TestRuntimeReachesDynamicResources proves that limits of the runtime count for what the control plane sends.
func TestRuntimeReachesDynamicResources(t *testing.T) {
	t.Parallel()
	c, err := load(t, "layered_runtime: {layers: [{name: a, static_layer: {re2.max_program_size.error_level: 300, "+
		"envoy.resource_limits.listener.web.connection_limit: 5}}]}")
	if err != nil {
		t.Fatal(err)
	}
	if c.Resource.Runtime != mesh.Runtime(c.Runtime) {
		t.Error("resources are not decoded with the runtime")
	}
	for key, want := range map[string]uint64{
		"re2.max_program_size.error_level": 300, "envoy.resource_limits.listener.web.connection_limit": 5, "other": 1,
	} {
		if got := c.Runtime.Key(key).Integer(1); got != want {
			t.Errorf("%s = %d, want %d", key, got, want)
		}
	}
}

// TestNodeForControlPlane proves what the first request of the stream says.
func TestNodeForControlPlane(t *testing.T) {
	t.Parallel()
	c, err := load(t, "node: {id: a, metadata: {role: x}, client_features: [f]}")
	if err != nil {
		t.Fatal(err)
	}
	n := c.NodeProto
	if n.GetUserAgentName() != "meshtap" || n.GetMetadata().GetFields()["role"].GetStringValue() != "x" ||
		len(n.GetClientFeatures()) != 3 || len(n.GetExtensions()) == 0 {
		t.Errorf("got %v", n)
	}
	if c.Bootstrap.GetNode().GetUserAgentName() != "" {
		t.Error("the message for dumps was changed")
	}
}

func FuzzBootstrap(f *testing.F) {
	scripts, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, script := range scripts {
		ar, err := txtar.ParseFile(script)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if strings.HasPrefix(file.Name, "bootstrap.") && !strings.Contains(script, "bomb") {
				f.Add(string(file.Data))
			}
		}
	}
	parsers := resourcetest.Parsers()
	f.Fuzz(func(t *testing.T, text string) {
		r := bootstrap.Validate(bootstrap.Options{
			YAML: text, Parsers: parsers,
			ReadFile: func(string, int) ([]byte, error) { return nil, errors.New("no files here") },
		})
		for _, i := range r.Issues {
			if i.Message == "" || strings.ContainsAny(r.Text(), "\x1b\r") {
				t.Fatalf("issue %+v in\n%s", i, r.Text())
			}
		}
		if _, err := r.JSON(); err != nil {
			t.Fatal(err)
		}
	})
}
