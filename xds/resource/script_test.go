// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

var rewrite = flag.Bool("rewrite", false, "write what was found into the scripts of testdata")

// kinds maps the name of a script's input to the resource's type URL and message.
var kinds = map[string]struct {
	typeURL string
	message func() proto.Message
}{
	"listener.yaml":  {resource.ListenerType, func() proto.Message { return &listenerv3.Listener{} }},
	"route.yaml":     {resource.RouteType, func() proto.Message { return &routev3.RouteConfiguration{} }},
	"cluster.yaml":   {resource.ClusterType, func() proto.Message { return &clusterv3.Cluster{} }},
	"extension.yaml": {resource.ExtensionType, func() proto.Message { return &corev3.TypedExtensionConfig{} }},
	"secret.yaml":    {resource.SecretType, func() proto.Message { return &tlsv3.Secret{} }},
	"scope.yaml":     {resource.ScopeType, func() proto.Message { return &routev3.ScopedRouteConfiguration{} }},
	"host.yaml":      {resource.HostType, func() proto.Message { return &routev3.VirtualHost{} }},
	"endpoints.yaml": {resource.EndpointsType, func() proto.Message { return &endpointv3.ClusterLoadAssignment{} }},
	"runtime.yaml":   {resource.RuntimeType, func() proto.Message { return &runtimev3.Runtime{} }},
}

// TestScripts decodes the resource of each script. A script is a txtar archive with one of the files of kinds, an
// optional file "options" with one option a line, and "want": the value, what is reported, or the errors.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(file), "testdata/"), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

func runScript(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got, want string
	opt := resource.Options{Parsers: resourcetest.Parsers(), LookupEnv: lookupEnv, ReadFile: readFile(t)}
	for _, f := range ar.Files {
		if f.Name == "options" {
			setOptions(t, &opt, string(f.Data))
		}
	}
	for i, f := range ar.Files {
		if _, ok := kinds[f.Name]; ok {
			got = decode(t, opt, f)
		}
		if f.Name == "want" {
			want = string(f.Data)
			ar.Files = append(ar.Files[:i:i], ar.Files[i+1:]...)
			break
		}
	}
	if broken := strings.Contains(file, "broken"); broken != strings.HasPrefix(got, "error") {
		t.Errorf("a broken resource must fail and a good one must not; got:\n%s", got)
	}
	if *rewrite {
		ar.Files = append(ar.Files, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func setOptions(t *testing.T, opt *resource.Options, text string) {
	for _, line := range strings.Fields(text) {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "static":
			opt.Static = true
		case "reject-unknown":
			opt.RejectUnknown = true
		case "accept-observational":
			opt.AcceptObservational = true
		case "secret":
			opt.Secrets = map[string]mesh.SecretType{value: mesh.SecretCertificate}
		case "delta-ads":
			opt.DeltaADS = true
		case "control-plane":
			opt.ControlPlane = append(opt.ControlPlane, value)
		case "runtime":
			opt.Runtime = runtimeKeys{}
		default:
			t.Fatalf("unknown option %q", line)
		}
	}
}

func lookupEnv(name string) (string, bool) { return "from the environment", name == "SET" }

// readFile reads the files of testdata, and those of /certs, which are made.
func readFile(t *testing.T) func(string, int) ([]byte, error) {
	made := sync.OnceValue(func() map[string][]byte {
		ca := testcert.New(t)
		server, other := ca.Issue(t, "server.test"), ca.Issue(t, "other.test")
		return map[string][]byte{
			"ca.pem": ca.PEM, "two.pem": append(slices.Clone(ca.PEM), ca.PEM...), "server.pem": server.CertPEM,
			"server.key": server.KeyPEM, "other.key": other.KeyPEM, "empty.pem": nil, "text.pem": []byte("no certificate\n"),
		}
	})
	return func(name string, limit int) ([]byte, error) {
		file, ok := strings.CutPrefix(name, "/certs/")
		if !ok {
			return resource.ReadFile(name, limit)
		}
		b, ok := made()[file]
		if !ok {
			return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		return b[:min(len(b), limit)], nil
	}
}

// decode turns the YAML of a resource into its serialized form, decodes that and writes what came of it.
func decode(t *testing.T, opt resource.Options, f txtar.File) string {
	k := kinds[f.Name]
	b := serialize(t, k.message(), f.Data)
	got, err := resource.New(opt).Decode(k.typeURL, b, "v1")
	if err != nil {
		return "error\n" + strings.TrimRight(err.Error(), "\n") + "\n"
	}
	var out strings.Builder
	for _, n := range got.NoEffect {
		fmt.Fprintf(&out, "note: %s\n", n)
	}
	if len(got.Refs.RouteTables)+len(got.Refs.Clusters) > 0 || got.Refs.Endpoints != "" {
		fmt.Fprintf(&out, "refs: route tables %v, clusters %v, endpoints %q\n",
			shown(got.Refs.RouteTables), got.Refs.Clusters, got.Refs.Endpoints)
	}
	for _, ref := range got.Refs.Parts {
		fmt.Fprintf(&out, "%v: %s %s\n", ref.Kind, ref.Types, shown([]string{ref.Key})[0])
	}
	for _, key := range shown(got.Refs.Scopes) {
		fmt.Fprintf(&out, "scopes of %q\n", key)
	}
	if got.Refs.HostSet != "" {
		fmt.Fprintf(&out, "virtual hosts of %q\n", shown([]string{got.Refs.HostSet})[0])
	}
	for _, src := range got.Refs.Sources {
		fmt.Fprintf(&out, "source %s\n", src.ID)
	}
	if got.Unknown > 0 {
		fmt.Fprintf(&out, "unknown fields: %d\n", got.Unknown)
	}
	out.WriteString(resourcetest.Dump(got.Value))
	return out.String()
}

func serialize(t testing.TB, m proto.Message, text []byte) []byte {
	t.Helper()
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(j, m); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shown are keys with "@" before the source; see internal/sourcekey.
func shown(keys []string) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = strings.ReplaceAll(k, "\x00", "@")
	}
	return out
}
