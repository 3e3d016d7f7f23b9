// SPDX-License-Identifier: Apache-2.0

package saved_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/saved"
)

func state() *saved.State {
	return &saved.State{
		Saved: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Node: "me\nor not", LeftOut: []string{`listener "a"`},
		Groups: []saved.Group{
			{TypeURL: resource.ClusterType, Source: "cluster GRPC a 1", Version: "7", Resources: []saved.Resource{
				{Name: "a", Version: "1", Raw: []byte("one")}, {Name: "b", Raw: []byte{0, '\n', 0xff}},
			}},
			{TypeURL: resource.ListenerType, Resources: []saved.Resource{{Name: "c", Raw: bytes.Repeat([]byte("x"), 1<<20)}}},
		},
	}
}

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there yet")
	if _, err := saved.Read(dir); !errors.Is(err, saved.ErrNone) {
		t.Errorf("nothing yet: %v", err)
	}
	for range 2 {
		if err := saved.Write(dir, state()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := saved.Read(dir)
	if err != nil || !reflect.DeepEqual(got, state()) {
		t.Errorf("got %+v, error %v", got, err)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 1 {
		t.Errorf("the directory holds %v, error %v", all, err)
	}
	info, err := os.Stat(saved.Path(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

// TestReadRefuses: what is not whole, or what others may have written, is refused in words.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := saved.Write(dir, state()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(saved.Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(whole)/2] ^= 1
	for _, tt := range []struct {
		name, want string
		text       []byte
		mode       os.FileMode
	}{
		{"one bit", "is not whole", flipped, 0o600},
		{"cut", "is not whole", whole[:len(whole)-1], 0o600},
		{"empty", "is none of this version's files", nil, 0o600},
		{"another file", "is none of this version's files", []byte("node: {}"), 0o600},
		{"a future version", "is none of this version's files", []byte(strings.Replace(string(whole), "configuration 1", "configuration 2", 1)), 0o600},
		{"others can read it", "must be a file that only its owner can read and write", whole, 0o604},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(saved.Path(dir), tt.text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(saved.Path(dir), tt.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := saved.Read(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// TestWriteFails: where it cannot be written, the old file stays and nothing is left beside it.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(saved.Path(dir), 0o700); err != nil { // nothing can be renamed over it
		t.Fatal(err)
	}
	if err := saved.Write(dir, state()); err == nil {
		t.Error("no error")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("the directory holds %v, error %v", all, err)
	}
	if err := saved.Write(saved.Path("/proc"), state()); err == nil {
		t.Error("no error")
	}
}

func data(s string) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: s}}
}

func file(s string) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_Filename{Filename: s}}
}

// TestSecret: a key in a resource is found where it is; the name of its file is none.
func TestSecret(t *testing.T) {
	t.Parallel()
	cluster := func(key, chain *corepb.DataSource) []byte {
		socket, err := anypb.New(&tlspb.UpstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{
			TlsCertificates: []*tlspb.TlsCertificate{{PrivateKey: key, CertificateChain: chain}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := proto.Marshal(&clusterpb.Cluster{Name: "a", TransportSocket: &corepb.TransportSocket{
			ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: socket},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		raw  []byte
		want bool
	}{
		{"none", cluster(nil, data("chain")), false},
		{"a key", cluster(data("key"), nil), true},
		{"a file", cluster(file("/key.pem"), file("/chain.pem")), false},
		{"not a message", []byte("\xff"), true},
	} {
		if got := saved.Secret(resource.ClusterType, tt.raw); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if !saved.Secret("type.googleapis.com/nobody.knows.It", []byte("x")) {
		t.Error("a type that is not known")
	}
}

// FuzzRead: no file makes the reader fail otherwise than with an error.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	if err := saved.Write(dir, state()); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(saved.Path(dir))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:2000])
	f.Add([]byte("meshtap saved configuration 1\n{}\n\x01\x02"))
	f.Add([]byte("{}\n\xda\xc5\xb7\xec\xdf\x17v\x01M\x03\xe4")) // says that 800 GB follow
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := saved.Decode(saved.Sealed(body))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := saved.Encode(&again, s); err != nil {
			t.Fatal(err)
		}
		if back, err := saved.Decode(again.Bytes()); err != nil || len(back.Groups) != len(s.Groups) {
			t.Errorf("written and read: %v", err)
		}
	})
}
