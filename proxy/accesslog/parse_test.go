// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/format"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the wanted results in testdata")

func TestParse(t *testing.T) {
	t.Parallel()
	const script = "testdata/parse.txtar"
	ar, err := txtar.ParseFile(script)
	if err != nil {
		t.Fatal(err)
	}
	files := NewFiles(Options{})
	defer files.Close()
	for i := 0; i+1 < len(ar.Files); i += 2 {
		in, want := ar.Files[i], &ar.Files[i+1]
		got := parsed(t, files, in.Name, in.Data) + "\n"
		if *rewrite {
			want.Data = []byte(got)
		} else if got != string(want.Data) {
			t.Errorf("%s\n got %swant %s", in.Name, got, want.Data)
		}
	}
	if *rewrite {
		if err := os.WriteFile(script, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// parsed returns what a configuration is without effect in, and the line that it gives.
func parsed(t *testing.T, files *Files, name string, config []byte) string {
	t.Helper()
	message, _, _ := strings.Cut(name, " ")
	row := rowOf(t, message)
	p, err := row.Parse(row.TypeURLs[0], wire(t, row.TypeURLs[0], config))
	var field *registry.FieldError
	if errors.As(err, &field) {
		return "error " + field.Error()
	}
	if err != nil {
		t.Fatalf("%s: %T is not a FieldError", name, err)
	}
	logger, err := row.Build(p.Config, Deps{Files: files, Env: &format.Env{}})
	if err != nil {
		t.Fatal(err)
	}
	defer logger.Close()
	l := logger.(*line)
	text, _ := l.render(nil, sample())
	out := fmt.Sprintf("%s %q", l.file.path, text)
	if len(p.NoEffect) > 0 {
		out = fmt.Sprintf("no effect: %s\n%s", strings.Join(p.NoEffect, ", "), out)
	}
	return out
}

func rowOf(t testing.TB, message string) registry.Row[Builder] {
	t.Helper()
	for _, r := range Rows() {
		if strings.HasSuffix(r.TypeURLs[0], "."+message) {
			return r
		}
	}
	t.Fatalf("no row for %s", message)
	return registry.Row[Builder]{}
}

// wire turns the JSON form of a message into its bytes.
func wire(t testing.TB, name string, config []byte) []byte {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	m := mt.New().Interface()
	if err := protojson.Unmarshal(config, m); err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseGarbage(t *testing.T) {
	t.Parallel()
	for _, r := range Rows() {
		if _, err := r.Parse(r.TypeURLs[0], []byte{0xff}); err == nil {
			t.Errorf("%s: garbage is accepted", r.Name)
		}
		if _, err := r.Parse(r.TypeURLs[0], []byte{0xf8, 0x07, 0x01}); err == nil || !strings.Contains(err.Error(), "does not have") {
			t.Errorf("%s: an unknown field gives %v", r.Name, err)
		}
	}
}

func TestFieldsAreCovered(t *testing.T) {
	t.Parallel()
	for _, r := range Rows() {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(r.TypeURLs[0]))
		if err != nil {
			t.Fatal(err)
		}
		table := fields
		if strings.HasSuffix(r.Name, "_grpc") {
			table = serviceFields
		}
		if u := table.Uncovered(mt.New().Interface()); len(u) > 0 {
			t.Errorf("%s: no rules for %v", r.Name, u)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(wire(f, typeFile, []byte(`{"path":"/x","logFormat":{"textFormat":"%REQ(a)%"}}`)))
	f.Add(wire(f, typeFile, []byte(`{"path":"/x","logFormat":{"jsonFormat":{"a":["%PATH%",1]}}}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range Rows() {
			p, err := r.Parse(r.TypeURLs[0], b)
			if err != nil {
				continue
			}
			c, ok := p.Config.(Config)
			if !ok || c.Path == "" {
				t.Fatalf("%s: parsed into %+v", r.Name, p.Config)
			}
			env := &format.Env{}
			if c.JSON != nil {
				env.AppendJSON(nil, c.JSON, sample(), c.OmitEmpty, 100)
			} else {
				env.Append(nil, c.Text, sample(), format.Log)
			}
		}
	})
}

// sample is a request as it may be logged.
func sample() *mesh.Outcome {
	return &mesh.Outcome{
		Start: time.Date(2026, 4, 15, 20, 17, 0, 310e6, time.UTC).UnixNano(), Duration: 226e6, UpstreamTook: 100e6,
		RequestEnd: 1e6, UpstreamStart: 2e6, UpstreamFirst: 3e6, UpstreamEnd: 4e6,
		Method: []byte("POST"), Path: []byte("/api/v1/locations"), Authority: []byte("locations"), Scheme: []byte("http"),
		Protocol: mesh.HTTP2, Status: 204, BytesReceived: 154,
		Upstream: mesh.Address{IP: netip.MustParseAddrPort("10.0.2.1:80")}, UpstreamLocal: netip.MustParseAddrPort("10.0.2.9:40000"),
		Headers: headers{
			"x-forwarded-for": "10.0.35.28", "user-agent": "nsq2http", "x-request-id": "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2",
			"x-envoy-upstream-service-time": "100",
		},
	}
}

// headers answers for requests and responses alike.
type headers map[string]string

func (h headers) RequestHeader(name string) []byte {
	if v, ok := h[name]; ok {
		return []byte(v)
	}
	return nil
}
func (h headers) ResponseHeader(name string) []byte { return h.RequestHeader(name) }
func (h headers) ResponseTrailer(string) []byte     { return nil }
