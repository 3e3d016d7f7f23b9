// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meshtap/meshtap/internal/format"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// headerOperations is what route configurations, virtual hosts, routes and weighted clusters have in common.
type headerOperations interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func (s *scope) headerOps(p *at, m headerOperations) mesh.HeaderOps {
	return mesh.HeaderOps{
		RequestAdd:     s.headersToAdd(p, "request_headers_to_add", m.GetRequestHeadersToAdd()),
		RequestRemove:  s.headersToRemove(p, "request_headers_to_remove", m.GetRequestHeadersToRemove()),
		ResponseAdd:    s.headersToAdd(p, "response_headers_to_add", m.GetResponseHeadersToAdd()),
		ResponseRemove: s.headersToRemove(p, "response_headers_to_remove", m.GetResponseHeadersToRemove()),
	}
}

func (s *scope) headersToAdd(p *at, field string, list []*corev3.HeaderValueOption) []mesh.HeaderAdd {
	if len(list) == 0 {
		return nil
	}
	out := make([]mesh.HeaderAdd, 0, len(list))
	for i, o := range list {
		out = append(out, s.headerToAdd(p.item(field, i), o))
	}
	return out
}

func (s *scope) headerToAdd(p *at, o *corev3.HeaderValueOption) mesh.HeaderAdd {
	out := mesh.HeaderAdd{Name: strings.ToLower(o.GetHeader().GetKey()), KeepEmpty: o.GetKeepEmptyValue()}
	switch {
	case fixed(out.Name):
		s.errorf(p.field("header").field("key"), "%q: the host header and those that begin with : are set by rewrites "+
			"only", out.Name)
	case out.Name != "" && !validName(out.Name):
		s.errorf(p.field("header").field("key"), "%q is not a header name: letters, digits and !#$%%&'*+-.^_|~`", out.Name)
	}
	out.Action = s.headerAction(p, o)
	value := o.GetHeader().GetValue()
	if raw := o.GetHeader().GetRawValue(); len(raw) > 0 {
		if value != "" {
			s.errorf(p.field("header"), "value and raw_value exclude each other")
		}
		value = string(raw)
	}
	if strings.ContainsAny(value, "\x00\r\n") {
		s.errorf(p.field("header").field("value"), controlCharacters)
	}
	f, ok := s.format(p.field("header").field("value"), value)
	if !ok {
		return out
	}
	out.Value = f
	out.Literal, _ = format.Literal(f)
	return out
}

func (s *scope) headerAction(p *at, o *corev3.HeaderValueOption) mesh.HeaderAction {
	if o.GetAppend() != nil {
		if o.GetAppendAction() != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			s.errorf(p, "append and append_action exclude each other")
		}
		if !o.GetAppend().GetValue() {
			return mesh.HeaderOverwrite
		}
		return mesh.HeaderAppend
	}
	switch o.GetAppendAction() {
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return mesh.HeaderAddIfAbsent
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		return mesh.HeaderOverwrite
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return mesh.HeaderOverwriteIfExists
	}
	return mesh.HeaderAppend
}

func (s *scope) headersToRemove(p *at, field string, names []string) []string {
	if len(names) == 0 {
		return nil
	}
	out := make([]string, 0, len(names))
	for i, n := range names {
		n = strings.ToLower(n)
		if fixed(n) {
			s.errorf(p.item(field, i), "%q: the host header and those that begin with : cannot be removed", n)
		}
		out = append(out, n)
	}
	return out
}

// fixed says whether header operations may not touch a header.
func fixed(name string) bool { return name == "host" || strings.HasPrefix(name, ":") }

// format parses a substitution format.
func (s *scope) format(p *at, text string) (mesh.Format, bool) {
	f, err := format.Parse(text)
	if err != nil {
		s.errorf(p, "%v", err)
		return nil, false
	}
	return f, true
}

func addHeaderFields(t *protofields.Table) {
	t.Add(&corev3.HeaderValueOption{}, protofields.Honour("header", "append", "append_action", "keep_empty_value"))
	t.Add(&corev3.HeaderValue{}, protofields.Honour("key", "value", "raw_value"))
}
