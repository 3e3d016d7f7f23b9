// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
)

func file(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecret(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, want, err string }{
		"a line":         {file(t, "s3cret\r\n", 0o600), "s3cret", ""},
		"for the group":  {file(t, " two words ", 0o640), " two words ", ""},
		"missing":        {"/none", "", "no such file"},
		"empty":          {file(t, "\n", 0o600), "", "is empty"},
		"open to others": {file(t, "x", 0o644), "", "mode 0644, at most 0640"},
	} {
		got, err := Secret(c.path)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	var none *TLS
	c, err := none.Client("a.example")
	if err != nil || c.ServerName != "a.example" || c.MinVersion != tls.VersionTLS12 || c.RootCAs != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = (&TLS{ServerName: "b.example"}).Client("a.example"); err != nil || c.ServerName != "b.example" {
		t.Errorf("%+v, %v", c, err)
	}
	text := file(t, "text", 0o600)
	for name, c := range map[string]struct {
		tls  TLS
		want string
	}{
		"no authority":        {TLS{CAFile: "/none"}, "no such file"},
		"not an authority":    {TLS{CAFile: text}, "holds no certificate"},
		"no key":              {TLS{CertificateFile: text, KeyFile: "/none"}, "no such file"},
		"a key for all":       {TLS{CertificateFile: text, KeyFile: file(t, "x", 0o666&^0o022)}, "has the mode 0644"},
		"neither key nor crt": {TLS{CertificateFile: text, KeyFile: text}, "are not a certificate and its key"},
	} {
		if _, err := c.tls.Client("x"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	var none *TLS
	files := &TLS{CAFile: "/ca", CertificateFile: "/crt"}
	alert := &net.OpError{Op: "remote error", Err: errors.New("bad certificate")}
	for _, c := range []struct {
		tls  *TLS
		err  error
		want string
	}{
		{none, errors.New("x"), ""},
		{none, fmt.Errorf("x: %w", x509.UnknownAuthorityError{}), "set tls.ca_file"},
		{files, x509.UnknownAuthorityError{}, "an authority of /ca"},
		{none, x509.HostnameError{}, "set tls.server_name"},
		{none, tls.RecordHeaderError{}, "speaks no TLS there"},
		{none, alert, "than none: set tls.certificate_file"},
		{files, alert, "than /crt"},
	} {
		if got := c.tls.Advice(c.err); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	if got, err := ParseTLS(nil); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	got, err := ParseTLS(&tapv1.Tls{CaFile: "a", CertificateFile: "b", PrivateKeyFile: "c", ServerName: "d"})
	if err != nil || *got != (TLS{"a", "b", "c", "d"}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseTLS(&tapv1.Tls{CertificateFile: "b"}); err == nil {
		t.Error("half a certificate is accepted")
	}
	if ParseUser("u", "") == nil || ParseUser("", "p") == nil || ParseUser("u", "p") != nil || ParseUser("", "") != nil {
		t.Error("both or none of user and password_file")
	}
	for _, c := range []struct {
		in   *durationpb.Duration
		want time.Duration
		ok   bool
	}{
		{nil, 5, true}, {durationpb.New(7), 7, true}, {durationpb.New(0), 0, false}, {durationpb.New(11), 0, false},
		{&durationpb.Duration{Seconds: 1, Nanos: -1}, 0, false},
	} {
		got, err := ParseDuration("x", c.in, 5, 1, 10)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%v: %v, %v", c.in, got, err)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "127.0.0.9": true, "::1": true, "10.0.0.1": false, "x": false} {
		if Local(host) != want {
			t.Errorf("%s is said to be local: %v", host, !want)
		}
	}
}

func TestParseContent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format            tapv1.Format
		mode              tapv1.ContentMode
		structured, proto bool
		err               string
	}{
		{tapv1.Format_FORMAT_UNSPECIFIED, tapv1.ContentMode_CONTENT_MODE_UNSPECIFIED, false, false, ""},
		{tapv1.Format_JSON, tapv1.ContentMode_STRUCTURED, true, false, ""},
		{tapv1.Format_PROTOBUF, tapv1.ContentMode_STRUCTURED, true, true, ""},
		{tapv1.Format_PROTOBUF, tapv1.ContentMode_BINARY, false, false, "mode: must be STRUCTURED where the format is PROTOBUF"},
		{tapv1.Format_JSON, tapv1.ContentMode_BATCHED, false, false, "mode: BATCHED, must be BINARY or STRUCTURED"},
		{9, tapv1.ContentMode_BINARY, false, false, "format: 9, must be JSON or PROTOBUF"},
	} {
		structured, proto, err := ParseContent(c.format, c.mode)
		if structured != c.structured || proto != c.proto || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%v, %v: %v, %v, %v", c.format, c.mode, structured, proto, err)
		}
	}
}

func TestParseNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   *wrapperspb.UInt32Value
		want int
		ok   bool
	}{
		{nil, 0, true}, {wrapperspb.UInt32(1), 1, true}, {wrapperspb.UInt32(8), 8, true}, {wrapperspb.UInt32(0), 0, false}, {wrapperspb.UInt32(9), 0, false},
	} {
		if got, err := ParseNumber("x", c.in, 0, 1, 8); got != c.want || (err == nil) != c.ok {
			t.Errorf("%v: %v, %v", c.in, got, err)
		}
	}
}

// TestDial has the context of a connection end.
func TestDial(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var none *TLS
	c, err := none.Dial(ctx, l.Addr().String(), false, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := none.Dial(ctx, l.Addr().String(), false, time.Minute); err == nil {
		t.Errorf("%v", err)
	}
	if _, err := (&TLS{CAFile: "/none"}).Dial(t.Context(), l.Addr().String(), true, time.Minute); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
