// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"fmt"
	"strings"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// Response is a DiscoveryResponse that was read from a file of resources, with where its fields stand.
type Response struct {
	Message *discoverypb.DiscoveryResponse
	// Warnings are what was accepted and deserves a word: fields that this version of Envoy's API does not have.
	Warnings []Issue
	doc      *walker
}

// ReadResponse reads the text of a file of resources, YAML or JSON, in the way in which a bootstrap is read. Unknown
// fields are reported, or refused where rejectUnknown is set. The error is an *Invalid.
func ReadResponse(file string, text []byte, rejectUnknown bool) (*Response, error) {
	report := &Report{File: file}
	r := &Response{Message: &discoverypb.DiscoveryResponse{}, doc: newWalker(file, report, !rejectUnknown)}
	if root := parse(file, text, report); root != nil {
		m := r.doc.message(root, r.Message.ProtoReflect().Descriptor(), "", 0)
		b, err := json.Marshal(m)
		if err == nil && report.Errors() == 0 {
			err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, r.Message)
		}
		if err != nil {
			report.fail(position{file: file}, "", fmt.Sprintf("cannot be read: %v", err), "")
		}
	}
	report.sort()
	if report.Errors() > 0 {
		return nil, &Invalid{*report}
	}
	r.Warnings = report.Issues
	return r, nil
}

const resourceWrapper = "/envoy.service.discovery.v3.Resource"

// Place returns where a field of resource i stands, as file:line:column.
func (r *Response) Place(i int, path string) string {
	p := fmt.Sprintf("resources[%d]", i)
	if list := r.Message.GetResources(); i < len(list) && strings.HasSuffix(list[i].GetTypeUrl(), resourceWrapper) {
		p += ".resource"
	}
	at := r.doc.place(joinPaths(p, path))
	return Issue{File: at.file, Line: at.line, Column: at.column}.place()
}

// Summary returns the first thing that is wrong as one line, and how much more there is.
func (e *Invalid) Summary() string {
	for _, i := range e.Report.Issues {
		if i.Severity != SeverityError {
			continue
		}
		text := i.place() + ": " + i.Message
		if i.Path != "" && !strings.Contains(i.Message, i.Path) {
			text = i.place() + ": " + clip(i.Path) + ": " + i.Message
		}
		if i.Hint != "" {
			text += "; " + i.Hint
		}
		if n := e.Report.Errors(); n > 1 {
			text += fmt.Sprintf(" (and %d more)", n-1)
		}
		return clean(text)
	}
	return e.Error()
}
