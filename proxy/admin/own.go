// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// apiVersion is in each JSON document of our own, so that its readers know what they read.
const apiVersion = "meshtap/v1"

func (s *Server) circuits(*request) (*answer, error) {
	list := s.views.Circuits()
	if list == nil {
		list = []Circuit{}
	}
	return jsonAnswer(struct {
		APIVersion string    `json:"apiVersion"`
		Circuits   []Circuit `json:"circuits"`
	}{apiVersion, list})
}

func (s *Server) xds(*request) (*answer, error) {
	x := *s.views.XDS()
	if x.Types == nil {
		x.Types = []XDSType{}
	}
	return jsonAnswer(struct {
		APIVersion string `json:"apiVersion"`
		XDS
	}{apiVersion, x})
}

func (s *Server) coverage(*request) (*answer, error) {
	c, err := s.views.Coverage()
	if err != nil {
		return nil, err
	}
	if c.Bootstrap == nil {
		c.Bootstrap = []BootstrapNote{}
	}
	if c.Resources == nil {
		c.Resources = []CoveredResource{}
	}
	return jsonAnswer(struct {
		APIVersion string `json:"apiVersion"`
		*Coverage
	}{apiVersion, c})
}

func (s *Server) history(*request) (*answer, error) {
	list, err := s.views.History()
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []Past{}
	}
	return jsonAnswer(struct {
		APIVersion string `json:"apiVersion"`
		Snapshots  []Past `json:"snapshots"`
	}{apiVersion, list})
}

func (s *Server) rollback(r *request) (*answer, error) {
	if err := r.query.only("version"); err != nil {
		return nil, err
	}
	if r.query.get("version") == "" {
		return nil, badRequest("usage: /config_rollback?version=<snapshot>\n")
	}
	if err := s.views.Rollback(r.query.get("version")); err != nil {
		return nil, err
	}
	return ok(), nil
}

func (s *Server) release(*request) (*answer, error) {
	if err := s.views.Release(); err != nil {
		return nil, err
	}
	return ok(), nil
}

func (s *Server) configDump(r *request) (*answer, error) {
	if err := r.query.only("resource", "mask", "name_regex", "include_eds"); err != nil {
		return nil, err
	}
	name, err := r.query.regexp("name_regex", "INVALID_ARGUMENT: Error while parsing name_regex from "+r.query.get("name_regex")+": ")
	if err != nil {
		return nil, err
	}
	write, err := s.views.ConfigDump(DumpQuery{
		Resource: r.query.get("resource"),
		Mask:     r.query.get("mask"),
		Name:     name,
		EDS:      r.query.has("include_eds"),
	})
	if err != nil {
		return nil, err
	}
	return writeJSON(write), nil
}

// events follows what happens, as server-sent events or as one JSON document per line.
func (s *Server) events(r *request) (*answer, error) {
	format := r.query.get("format")
	if format == "" && strings.Contains(r.accept, "text/event-stream") {
		format = "sse"
	}
	a := &answer{status: http.StatusOK, stream: true}
	var prefix, suffix string
	switch format {
	case "", "ndjson":
		a.contentType, suffix = "application/x-ndjson", "\n"
	case "sse":
		a.contentType, prefix, suffix = "text/event-stream", "data: ", "\n\n"
	default:
		return nil, badRequest("unknown format %q; known are ndjson and sse\n", clean(format))
	}
	delete(r.query, "format")
	follow, err := s.views.Events(url.Values(r.query))
	if err != nil {
		return nil, err
	}
	a.write = func(ctx context.Context, w io.Writer) error {
		return follow(ctx, &records{prefix, suffix, &jsonWriter{w: bufio.NewWriter(w)}})
	}
	return a, nil
}

// records frames each Write as one record and sends it.
type records struct {
	prefix, suffix string
	out            *jsonWriter
}

func (r *records) Write(p []byte) (int, error) {
	line := bytes.TrimRight(p, "\n")
	prefix := r.prefix
	if len(line) == 0 && prefix != "" {
		prefix = ":" // a comment: an empty line asks whether the reader is there, and is no event
	}
	r.out.w.WriteString(prefix)
	for part := range bytes.SplitSeq(line, []byte("\n")) { // a line break would end the record
		if _, err := r.out.Write(part); err != nil {
			return 0, err
		}
	}
	r.out.w.WriteString(r.suffix)
	if err := r.out.Flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}
