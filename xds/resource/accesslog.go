// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	accesslogdata "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
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
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		f.Share = s.logShare(x.RuntimeFilter)
	case *accesslogv3.AccessLogFilter_GrpcStatusFilter:
		f.GRPC = &mesh.LogGRPC{Exclude: x.GrpcStatusFilter.GetExclude()}
		for _, status := range x.GrpcStatusFilter.GetStatuses() {
			f.GRPC.Statuses |= 1 << status
		}
	case *accesslogv3.AccessLogFilter_MetadataFilter:
		// Nothing here sets dynamic metadata, so the key is never found.
		f.Always = boolOr(x.MetadataFilter.GetMatchIfKeyNotFound(), true)
		s.notef(p.field("metadata_filter"), "nothing here sets dynamic metadata, so match_if_key_not_found decides: it %s", lets[f.Always])
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		s.notef(p.field("traceable_filter"), "nothing is traced here, so it %s", lets[false])
	case *accesslogv3.AccessLogFilter_ExtensionFilter:
		xp := p.field("extension_filter").field("typed_config")
		if ext, ok := s.extension(xp, registry.LogFilter, x.ExtensionFilter.GetName(), x.ExtensionFilter.GetTypedConfig(), false); ok {
			f.Extension = &ext
		}
	case *accesslogv3.AccessLogFilter_LogTypeFilter:
		types, exclude := x.LogTypeFilter.GetTypes(), x.LogTypeFilter.GetExclude()
		f.HTTP = slices.Contains(types, accesslogdata.AccessLogType_DownstreamEnd) != exclude
		f.TCP = slices.Contains(types, accesslogdata.AccessLogType_TcpConnectionEnd) != exclude
	}
	return f
}

var lets = map[bool]string{true: "lets everything through", false: "lets nothing through"}

// logShare reads a share. Without one, nothing is logged until the runtime says how much.
func (s *scope) logShare(m *accesslogv3.RuntimeFilter) *mesh.LogShare {
	f := protomatch.Fraction(m.GetPercentSampled())
	return &mesh.LogShare{
		Numerator: f.Numerator, Denominator: f.Denominator,
		Runtime: s.key(m.GetRuntimeKey()), Independent: m.GetUseIndependentRandomness(),
	}
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
			"header_filter", "response_flag_filter", "runtime_filter", "grpc_status_filter", "log_type_filter", "metadata_filter",
			"traceable_filter", "extension_filter"))
	t.Add(&accesslogv3.MetadataFilter{}, protofields.Honour("match_if_key_not_found"), protofields.Opaque("matcher"))
	t.Add(&accesslogv3.TraceableFilter{})
	t.Add(&accesslogv3.ExtensionFilter{}, protofields.Honour("name", "typed_config"))
	t.Add(&accesslogv3.RuntimeFilter{}, protofields.Honour("runtime_key", "percent_sampled", "use_independent_randomness"))
	t.Add(&accesslogv3.GrpcStatusFilter{}, protofields.Honour("statuses", "exclude"))
	t.Add(&accesslogv3.LogTypeFilter{}, protofields.Honour("types", "exclude"))
	t.Add(&accesslogv3.StatusCodeFilter{}, protofields.Honour("comparison"))
	t.Add(&accesslogv3.DurationFilter{}, protofields.Honour("comparison"))
	t.Add(&accesslogv3.ComparisonFilter{}, protofields.Honour("op", "value"))
	t.Add(&accesslogv3.NotHealthCheckFilter{})
	t.Add(&accesslogv3.AndFilter{}, protofields.Honour("filters"))
	t.Add(&accesslogv3.OrFilter{}, protofields.Honour("filters"))
	t.Add(&accesslogv3.HeaderFilter{}, protofields.Honour("header"))
	t.Add(&accesslogv3.ResponseFlagFilter{}, protofields.Honour("flags"))
}
