// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strconv"

	"github.com/meshtap/meshtap/internal/stats"
)

// selection is what part of the stats is asked for.
type selection struct {
	usedOnly bool
	filter   *regexp.Regexp
	invert   bool
	kinds    []stats.Kind
	name     []byte // scratch
}

func newSelection(q query) (*selection, error) {
	filter, err := q.regexp("filter", badFilter)
	if err != nil {
		return nil, err
	}
	return &selection{usedOnly: q.has("usedonly"), filter: filter, invert: q.has("invert_filter"),
		kinds: []stats.Kind{stats.Counter, stats.Gauge, stats.Text, stats.Histogram}}, nil
}

// takes reports whether a metric is asked for. Afterwards name holds its name.
func (s *selection) takes(m *stats.Metric) bool {
	if s.usedOnly && !m.Used {
		return false
	}
	s.name = m.AppendName(s.name[:0])
	return s.filter == nil || s.filter.Match(s.name) != s.invert
}

// each yields the metrics that are asked for among those of these kinds.
func (s *selection) each(r *stats.Registry, yield func(*stats.Metric) bool, kinds ...stats.Kind) {
	want := func(k stats.Kind) bool { return slices.Contains(kinds, k) && slices.Contains(s.kinds, k) }
	r.Each(want, func(m *stats.Metric) bool { return !s.takes(m) || yield(m) })
}

// bucketModes are how /stats prints histograms; "none" is Envoy's other word for "summary".
var bucketModes = []string{"", "none", "summary", "cumulative", "disjoint", "detailed"}

func (s *Server) stats(r *request) (*answer, error) {
	q := r.query
	format := q.get("format")
	if format == "prometheus" {
		return s.prometheus(r)
	}
	if !slices.Contains([]string{"", "html", "json", "text"}, format) {
		return nil, badRequest("usage: /stats?format=(html|json|prometheus|text)\n\n")
	}
	mode := q.get("histogram_buckets")
	if !slices.Contains(bucketModes, mode) {
		return nil, badRequest("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n\n")
	}
	hidden := q.get("hidden")
	if !slices.Contains([]string{"", "include", "only", "exclude"}, hidden) {
		return nil, badRequest("usage: /stats?hidden=(include|only|exclude)\n\n")
	}
	sel, err := newSelection(q)
	if err != nil {
		return nil, err
	}
	if hidden == "only" { // there are none
		sel.kinds = nil
	}
	if t := q.get("type"); t != "" && t != "All" {
		kind, known := map[string]stats.Kind{"Counters": stats.Counter, "Gauges": stats.Gauge, "Histograms": stats.Histogram,
			"TextReadouts": stats.Text}[t]
		if !known {
			return nil, badRequest("invalid &type= param")
		}
		if sel.kinds != nil {
			sel.kinds = []stats.Kind{kind}
		}
	}
	switch format {
	case "json":
		return writeJSON(func(w io.Writer) error { return s.statsJSON(w, sel, mode) }), nil
	case "html":
		return s.statsPage(q, func(w *bufio.Writer) error { return s.statsText(w, sel, mode) }), nil
	}
	return writeText(func(w *bufio.Writer) error { return s.statsText(w, sel, mode) }), nil
}

// statsText prints texts first, then numbers, then histograms, each by name.
func (s *Server) statsText(w *bufio.Writer, sel *selection, mode string) (err error) {
	var buf []byte
	put := func() bool {
		_, err = w.Write(append(buf, '\n'))
		return err == nil
	}
	name := func() { buf = append(append(buf[:0], clean(sel.name)...), ": "...) }
	sel.each(s.deps.Stats, func(m *stats.Metric) bool {
		name()
		buf = append(append(append(buf, '"'), clean(m.Text)...), '"')
		return put()
	}, stats.Text)
	sel.each(s.deps.Stats, func(m *stats.Metric) bool {
		name()
		buf = strconv.AppendInt(buf, m.Value, 10)
		return put()
	}, stats.Counter, stats.Gauge)
	sel.each(s.deps.Stats, func(m *stats.Metric) bool {
		name()
		buf = appendHistogram(buf, m, mode)
		return put()
	}, stats.Histogram)
	return err
}

// statsJSON prints {"stats":[{"name":...,"value":...},...,{"histograms":...}]}.
func (s *Server) statsJSON(w io.Writer, sel *selection, mode string) error {
	l := &jsonList{w: w}
	l.raw(`{"stats":[`)
	sel.each(s.deps.Stats, func(m *stats.Metric) bool {
		return l.put(struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		}{string(sel.name), m.Text})
	}, stats.Text)
	sel.each(s.deps.Stats, func(m *stats.Metric) bool {
		return l.put(struct {
			Name  string `json:"name"`
			Value int64  `json:"value"`
		}{string(sel.name), m.Value})
	}, stats.Counter, stats.Gauge)
	head, foot := histogramsFrame(mode)
	end := "]}"
	sel.each(s.deps.Stats, func(m *stats.Metric) bool {
		if end == "]}" {
			l.raw(l.between + head)
			l.between, end = "", foot+end
		}
		return l.put(histogramJSON(string(sel.name), m, mode))
	}, stats.Histogram)
	l.raw(end)
	return l.err
}

// jsonList writes the elements of a list one by one, and nothing after an error.
type jsonList struct {
	w       io.Writer
	between string // goes before the next element
	err     error
}

func (l *jsonList) raw(s string) {
	if l.err == nil {
		_, l.err = io.WriteString(l.w, s)
	}
}

// put writes an element. It returns false after an error.
func (l *jsonList) put(v any) bool {
	b, err := json.Marshal(v)
	if err != nil {
		l.err = err
		return false
	}
	l.raw(l.between + string(b))
	l.between = ","
	return l.err == nil
}
