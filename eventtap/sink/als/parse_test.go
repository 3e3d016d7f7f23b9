// SPDX-License-Identifier: Apache-2.0

package als

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
)

func TestParse(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 129)
	for _, c := range []struct {
		name    string
		in      *tapv1.AlsSink
		want    Config
		secure  bool
		refused string
	}{
		{"on this machine", &tapv1.AlsSink{Address: "127.0.0.1:9"}, Config{Address: "127.0.0.1:9", LogName: "meshtap"}, false, ""},
		{"in plain text", &tapv1.AlsSink{Address: "far:9", LogName: "l", AllowPlaintext: true}, Config{Address: "far:9", LogName: "l"}, false, ""},
		{"with TLS", &tapv1.AlsSink{Address: "far:9", Tls: &tapv1.Tls{CaFile: "/ca"}}, Config{Address: "far:9", LogName: "meshtap"}, true, ""},
		{"nowhere", &tapv1.AlsSink{}, Config{}, false, `address: "", must be host:port`},
		{"no port", &tapv1.AlsSink{Address: "h:x"}, Config{}, false, `address: "h:x", must be host:port`},
		{"far and plain", &tapv1.AlsSink{Address: "far:9"}, Config{}, false, `address: "far:9" is not on this machine: set tls, or allow_plaintext`},
		{"a long name", &tapv1.AlsSink{Address: "127.0.0.1:9", LogName: long}, Config{}, false, "log_name: 129 bytes, at most 128 are allowed"},
		{"half a certificate", &tapv1.AlsSink{Address: "127.0.0.1:9", Tls: &tapv1.Tls{CertificateFile: "/c"}}, Config{}, false, "tls: certificate_file"},
	} {
		b, err := proto.Marshal(c.in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(TypeURL, b)
		if c.refused != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.refused) {
				t.Errorf("%s: refused with %v, want %q", c.name, err, c.refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := p.Config.(Config)
		if c.secure != (got.TLS != nil) {
			t.Errorf("%s: TLS %v", c.name, got.TLS)
		}
		if got.TLS = nil; got != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
		if s, err := Rows()[0].Build(p.Config, eventtap.SinkDeps{}); err != nil || s == nil {
			t.Errorf("%s: %v, %v", c.name, s, err)
		}
	}
	if left := fields.Uncovered(&tapv1.AlsSink{}); len(left) > 0 {
		t.Errorf("no rules for %v", left)
	}
}
