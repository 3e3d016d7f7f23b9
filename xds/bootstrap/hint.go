// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/meshtap/meshtap/internal/nearest"
)

// fieldHint guesses which field was meant by a name that a message does not have.
func fieldHint(name string, d protoreflect.MessageDescriptor) string {
	if hint := formerFields[string(d.Name())+"."+name]; hint != "" {
		return hint
	}
	var names []string
	for i := range d.Fields().Len() {
		names = append(names, string(d.Fields().Get(i).Name()))
	}
	near, score := nearest.Scored(snake(name), names)
	if score > oneEdit {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			if fd.Message() != nil && !isWellKnown(fd.Message()) && !fd.IsMap() && field(fd.Message(), name) != nil {
				near = string(fd.Name()) + "." + snake(name)
				break
			}
		}
	}
	if near == "" {
		return theFields(d)
	}
	return fmt.Sprintf("did you mean %q?", near)
}

// oneEdit is the score of names that differ by one letter, or in the order of their parts; fewFields are as many as can be
// listed.
const oneEdit, fewFields = 3, 10

// theFields lists the fields of a message, where they are few.
func theFields(d protoreflect.MessageDescriptor) string {
	var names []string
	for i := range d.Fields().Len() {
		if o, ok := d.Fields().Get(i).Options().(*descriptorpb.FieldOptions); !ok || !o.GetDeprecated() {
			names = append(names, string(d.Fields().Get(i).Name()))
		}
	}
	if len(names) == 0 || len(names) > fewFields {
		return ""
	}
	return "its fields are " + strings.Join(names, ", ")
}

// formerFields are names of Envoy's v2 API that people still find in examples.
var formerFields = map[string]string{
	"Cluster.hosts":                 "since v3: load_assignment",
	"Cluster.tls_context":           "since v3: transport_socket",
	"Filter.config":                 `since v3: typed_config, with "@type"`,
	"HttpFilter.config":             `since v3: typed_config, with "@type"`,
	"ListenerFilter.config":         `since v3: typed_config, with "@type"`,
	"AccessLog.config":              `since v3: typed_config, with "@type"`,
	"FilterChain.tls_context":       "since v3: transport_socket",
	"HeaderMatcher.regex_match":     "since v3: string_match.safe_regex",
	"RouteMatch.regex":              "since v3: safe_regex",
	"Route.per_filter_config":       "since v3: typed_per_filter_config",
	"VirtualHost.per_filter_config": "since v3: typed_per_filter_config",
	"Bootstrap.runtime":             "since v3: layered_runtime",
}
