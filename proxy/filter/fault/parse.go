// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"cmp"
	"math"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
)

const typeURL = "envoy.extensions.filters.http.fault.v3.HTTPFault"

// Rows returns the filter for the table of extensions. Its numbers have runtime keys.
func Rows(keys mesh.Runtime) []registry.Row[filter.Builder] {
	return []registry.Row[filter.Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.fault", TypeURLs: []string{typeURL},
			Status: registry.Alpha, Posture: "untrusted", Example: "fault.yaml",
		},
		Parse: func(_ string, b []byte) (registry.Parsed, error) { return parser{keys}.parse(b) },
		Build: New,
	}}
}

// fields says which fields of the messages are honoured.
var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&faultpb.HTTPFault{},
		protofields.Honour("delay", "abort", "upstream_cluster", "headers", "downstream_nodes", "max_active_faults",
			"response_rate_limit", "disable_downstream_cluster_stats",
			"delay_percent_runtime", "abort_percent_runtime", "delay_duration_runtime", "abort_http_status_runtime",
			"max_active_faults_runtime", "response_rate_limit_percent_runtime", "abort_grpc_status_runtime"),
		protofields.Refuse("dynamic metadata is not kept", "filter_metadata"))
	t.Add(&faultpb.FaultAbort{}, protofields.Honour("http_status", "grpc_status", "header_abort", "percentage", "response_body"))
	t.Add(&faultpb.FaultAbort_HeaderAbort{})
	t.Add(&commonpb.FaultDelay{}, protofields.Honour("fixed_delay", "header_delay", "percentage"))
	t.Add(&commonpb.FaultDelay_HeaderDelay{})
	t.Add(&commonpb.FaultRateLimit{}, protofields.Honour("fixed_limit", "header_limit", "percentage"))
	t.Add(&commonpb.FaultRateLimit_FixedLimit{}, protofields.Honour("limit_kbps"))
	t.Add(&commonpb.FaultRateLimit_HeaderLimit{})
	protomatch.AddFields(t)
	return t
}()

// Fields returns the table of the fields that the filter honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

// parser reads the message of the filter.
type parser struct{ keys mesh.Runtime }

// key is the runtime key of a number: the one that the message names, else the one that it has anyway.
func (r parser) key(named, otherwise string) mesh.RuntimeKey {
	return r.keys.Key(cmp.Or(named, "fault.http."+otherwise))
}

func (r parser) parse(b []byte) (registry.Parsed, error) {
	m := &faultpb.HTTPFault{}
	p, err := fields.Decode(b, m)
	if err != nil {
		return p, err
	}
	headers, err := protomatch.Headers("headers", m.GetHeaders(), protomatch.MaxProgram)
	if err != nil {
		return registry.Parsed{}, err
	}
	c := &Config{
		Delay: r.delay(m), Abort: r.abort(m), Limit: r.limit(m),
		Cluster: m.GetUpstreamCluster(), Headers: headers, MaxActive: math.MaxUint64, NoPeers: m.GetDisableDownstreamClusterStats(),
		MaxActiveKey: r.key(m.GetMaxActiveFaultsRuntime(), "max_active_faults"),
	}
	if n := m.GetMaxActiveFaults(); n != nil {
		c.MaxActive = uint64(n.GetValue())
	}
	for _, n := range m.GetDownstreamNodes() {
		if c.Nodes == nil {
			c.Nodes = map[string]bool{}
		}
		c.Nodes[n] = true
	}
	p.Config = c
	return p, nil
}

// share reads a percentage. header is the one by which a request may ask for less, where it may.
func share(f *typepb.FractionalPercent, key mesh.RuntimeKey, may bool, header string) Share {
	s := Share{Fraction: *protomatch.Fraction(f)}
	s.Runtime = key
	if may {
		s.Header = header
	}
	return s
}

func (r parser) delay(f *faultpb.HTTPFault) *Delay {
	m := f.GetDelay()
	if m == nil {
		return nil
	}
	d := &Delay{
		Header: m.GetHeaderDelay() != nil, Millis: uint64(m.GetFixedDelay().AsDuration() / time.Millisecond),
		Key: r.key(f.GetDelayDurationRuntime(), "delay.fixed_duration_ms"),
	}
	d.Share = share(m.GetPercentage(), r.key(f.GetDelayPercentRuntime(), "delay.fixed_delay_percent"), d.Header, hdrDelayPercent)
	return d
}

func (r parser) abort(f *faultpb.HTTPFault) *Abort {
	m := f.GetAbort()
	if m == nil {
		return nil
	}
	a := &Abort{
		Header: m.GetHeaderAbort() != nil, Status: uint64(m.GetHttpStatus()), GRPC: uint64(m.GetGrpcStatus()),
		StatusKey: r.key(f.GetAbortHttpStatusRuntime(), "abort.http_status"),
		GRPCKey:   r.key(f.GetAbortGrpcStatusRuntime(), "abort.grpc_status"),
		Body:      cmp.Or(m.GetResponseBody(), "fault filter abort"),
	}
	a.Share = share(m.GetPercentage(), r.key(f.GetAbortPercentRuntime(), "abort.abort_percent"), a.Header, hdrAbortPercent)
	return a
}

func (r parser) limit(f *faultpb.HTTPFault) *Limit {
	m := f.GetResponseRateLimit()
	if m == nil {
		return nil
	}
	l := &Limit{Header: m.GetHeaderLimit() != nil, KiB: int64(min(m.GetFixedLimit().GetLimitKbps(), mostKiB))}
	l.Share = share(m.GetPercentage(), r.key(f.GetResponseRateLimitPercentRuntime(), "rate_limit.response_percent"), l.Header, hdrLimitPercent)
	return l
}
