// SPDX-License-Identifier: Apache-2.0

package login

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// Fields adds the rules of the messages that this package parses.
func Fields(t *protofields.Table) {
	t.Add(&tapv1.Tls{}, protofields.Honour("ca_file", "certificate_file", "private_key_file", "server_name"))
}

// ParseTLS reads the field tls. It returns nil where that is not set.
func ParseTLS(t *tapv1.Tls) (*TLS, error) {
	if t == nil {
		return nil, nil
	}
	if (t.CertificateFile == "") != (t.PrivateKeyFile == "") {
		return nil, registry.Errorf("tls", "certificate_file and private_key_file must be set together")
	}
	return &TLS{CAFile: t.CaFile, CertificateFile: t.CertificateFile, KeyFile: t.PrivateKeyFile, ServerName: t.ServerName}, nil
}

// ParseUser checks the fields user and password_file, of which both or none is set.
func ParseUser(user, passwordFile string) error {
	if (user == "") != (passwordFile == "") {
		return registry.Errorf("password_file", "must be set together with user")
	}
	return nil
}

// ParseFormat reads the field format, and tells whether it is protobuf.
func ParseFormat(f tapv1.Format) (proto bool, err error) {
	switch f {
	case tapv1.Format_FORMAT_UNSPECIFIED, tapv1.Format_JSON:
		return false, nil
	case tapv1.Format_PROTOBUF:
		return true, nil
	}
	return false, registry.Errorf("format", "%s, must be JSON or PROTOBUF", f)
}

// ParseContent reads the fields format and mode of a bus whose messages hold one event each. structured tells whether the
// whole event is a message's body.
func ParseContent(f tapv1.Format, mode tapv1.ContentMode) (structured, proto bool, err error) {
	if proto, err = ParseFormat(f); err != nil {
		return false, false, err
	}
	switch mode {
	case tapv1.ContentMode_CONTENT_MODE_UNSPECIFIED, tapv1.ContentMode_BINARY:
		if proto {
			return false, false, registry.Errorf("mode", "must be STRUCTURED where the format is PROTOBUF")
		}
		return false, false, nil
	case tapv1.ContentMode_STRUCTURED:
		return true, proto, nil
	}
	return false, false, registry.Errorf("mode", "%s, must be BINARY or STRUCTURED", mode)
}

// ParseNumber reads a number that has a default and limits.
func ParseNumber(path string, v *wrapperspb.UInt32Value, def, least, most uint32) (int, error) {
	if v == nil {
		return int(def), nil
	}
	if v.Value < least || v.Value > most {
		return 0, registry.Errorf(path, "%d, must be %d to %d", v.Value, least, most)
	}
	return int(v.Value), nil
}

// ParseDuration reads a duration that has a default and limits.
func ParseDuration(path string, d *durationpb.Duration, def, least, most time.Duration) (time.Duration, error) {
	if d == nil {
		return def, nil
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < least || v > most {
		return 0, registry.Errorf(path, "%v, must be %v to %v", v, least, most)
	}
	return v, nil
}
