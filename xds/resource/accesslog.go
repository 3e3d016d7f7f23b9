// SPDX-License-Identifier: Apache-2.0

package resource

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

func (s *scope) accessLogs(p *at, list []*accesslogv3.AccessLog) []mesh.AccessLog {
	var out []mesh.AccessLog
	for i, m := range list {
		lp := p.item("access_log", i)
		ext, ok := s.extension(lp.field("typed_config"), registry.AccessLogger, m.GetName(), m.GetTypedConfig(), false)
		if !ok {
			continue
		}
		log := mesh.AccessLog{Extension: ext}
		if m.GetFilter() != nil {
			log.Filter = s.logFilter(lp.field("filter"), m.GetFilter())
		}
		out = append(out, log)
	}
	return out
}

func (s *scope) logFilter(p *at, m *accesslogv3.AccessLogFilter) *mesh.LogFilter {
	f := &mesh.LogFilter{}
	switch x := m.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		f.Status = s.comparison(x.StatusCodeFilter.GetComparison())
	case *accesslogv3.AccessLogFilter_DurationFilter:
		f.Duration = s.comparison(x.DurationFilter.GetComparison())
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		f.NotCheck = true
	case *accesslogv3.AccessLogFilter_AndFilter:
		f.And = s.logFilters(p.field("and_filter"), x.AndFilter.GetFilters())
	case *accesslogv3.AccessLogFilter_OrFilter:
		f.Or = s.logFilters(p.field("or_filter"), x.OrFilter.GetFilters())
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		h := s.headerMatch(p.field("header_filter").field("header"), x.HeaderFilter.GetHeader())
		f.Header = &h
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		s.flagFilter(p.field("response_flag_filter"), f, x.ResponseFlagFilter.GetFlags())
	}
	return f
}

func (s *scope) logFilters(p *at, list []*accesslogv3.AccessLogFilter) []*mesh.LogFilter {
	out := make([]*mesh.LogFilter, 0, len(list))
	for i, m := range list {
		out = append(out, s.logFilter(p.item("filters", i), m))
	}
	return out
}

func (s *scope) flagFilter(p *at, f *mesh.LogFilter, names []string) {
	f.AnyFlag = len(names) == 0
	for i, n := range names {
		flag, ok := mesh.ParseFlag(n)
		if !ok {
			s.notef(p.item("flags", i), "nothing here sets the response flag %s", n)
		}
		f.Flags |= flag
	}
}

func (s *scope) comparison(m *accesslogv3.ComparisonFilter) *mesh.Comparison {
	c := &mesh.Comparison{Op: '=', Value: m.GetValue().GetDefaultValue(), Runtime: s.key(m.GetValue().GetRuntimeKey())}
	switch m.GetOp() {
	case accesslogv3.ComparisonFilter_GE:
		c.Op = '>'
	case accesslogv3.ComparisonFilter_LE:
		c.Op = '<'
	case accesslogv3.ComparisonFilter_NE:
		c.Op = '!'
	}
	return c
}

func addAccessLogFields(t *protofields.Table) {
	t.Add(&accesslogv3.AccessLog{}, protofields.Honour("name", "filter", "typed_config"))
	t.Add(&accesslogv3.AccessLogFilter{},
		protofields.Honour("status_code_filter", "duration_filter", "not_health_check_filter", "and_filter", "or_filter",
			"header_filter", "response_flag_filter"),
		protofields.Refuse("a log would hold other requests than it is asked for",
			"traceable_filter", "runtime_filter", "grpc_status_filter", "extension_filter", "metadata_filter",
			"log_type_filter"))
	t.Add(&accesslogv3.StatusCodeFilter{}, protofields.Honour("comparison"))
	t.Add(&accesslogv3.DurationFilter{}, protofields.Honour("comparison"))
	t.Add(&accesslogv3.ComparisonFilter{}, protofields.Honour("op", "value"))
	t.Add(&accesslogv3.NotHealthCheckFilter{})
	t.Add(&accesslogv3.AndFilter{}, protofields.Honour("filters"))
	t.Add(&accesslogv3.OrFilter{}, protofields.Honour("filters"))
	t.Add(&accesslogv3.HeaderFilter{}, protofields.Honour("header"))
	t.Add(&accesslogv3.ResponseFlagFilter{}, protofields.Honour("flags"))
}
