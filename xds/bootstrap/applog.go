// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"encoding/json"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/meshtap/meshtap/internal/logform"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/xds/resource"
)

// logForm reads the form of the process' own log.
func (l *loader) logForm(s *resource.Scope, m *bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat) {
	const path = "application_log_config.log_format"
	if m == nil {
		return
	}
	if l.opt.LogFormSet {
		s.Fail(path, "may be given here or with --log-format, not both")
		return
	}
	if m.GetJsonFormat() == nil {
		l.config.LogForm = logform.Parse(m.GetTextFormat())
		return
	}
	var text bytes.Buffer
	b, err := m.GetJsonFormat().MarshalJSON()
	if err == nil {
		err = json.Compact(&text, b) // the protobuf library puts blanks in at random
	}
	if err == nil {
		l.config.LogForm, err = logform.ParseJSON(text.String())
	}
	if err != nil {
		s.Fail(path+".json_format", err.Error())
	}
}

func addLogFields(t *protofields.Table) {
	t.Add(&bootstrapv3.Bootstrap_ApplicationLogConfig{}, protofields.Honour("log_format"))
	t.Add(&bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat{}, protofields.Opaque("json_format"), protofields.Honour("text_format"))
}
