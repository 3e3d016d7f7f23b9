// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// Defaults of HTTP/2.
const (
	inboundStreams  = 100  // that a client may have open
	outboundStreams = 1024 // that we open on one upstream connection, if it allows as many

	http2StreamWindow     = 256 << 10
	http2ConnectionWindow = 1 << 20
	http2HeaderTable      = 4 << 10

	http2OutboundFrames        = 10_000
	http2OutboundControlFrames = 1_000
	http2EmptyFrames           = 1
	http2PriorityFrames        = 100
	http2WindowUpdates         = 10

	http2PingInterval = 30 * time.Second
	http2PingTimeout  = 10 * time.Second
)

// http2 reads how HTTP/2 is spoken on one side; m may be nil.
func (s *scope) http2(p *at, m *corev3.Http2ProtocolOptions, streams uint32) mesh.HTTP2Options {
	h := mesh.HTTP2Options{
		MaxConcurrentStreams:  uint32Or(m.GetMaxConcurrentStreams(), streams),
		StreamWindow:          uint32Or(m.GetInitialStreamWindowSize(), http2StreamWindow),
		ConnectionWindow:      uint32Or(m.GetInitialConnectionWindowSize(), http2ConnectionWindow),
		HeaderTable:           uint32Or(m.GetHpackTableSize(), http2HeaderTable),
		AllowConnect:          m.GetAllowConnect(),
		OutboundFrames:        uint32Or(m.GetMaxOutboundFrames(), http2OutboundFrames),
		OutboundControlFrames: uint32Or(m.GetMaxOutboundControlFrames(), http2OutboundControlFrames),
		EmptyFrames:           uint32Or(m.GetMaxConsecutiveInboundFramesWithEmptyPayload(), http2EmptyFrames),
		PriorityFrames:        uint32Or(m.GetMaxInboundPriorityFramesPerStream(), http2PriorityFrames),
		WindowUpdates:         uint32Or(m.GetMaxInboundWindowUpdateFramesPerDataFrameSent(), http2WindowUpdates),
		KeepAlive:             mesh.HTTP2KeepAlive{Interval: http2PingInterval, Timeout: http2PingTimeout},
	}
	if k := m.GetConnectionKeepalive(); k != nil {
		kp := p.field("connection_keepalive")
		h.KeepAlive = mesh.HTTP2KeepAlive{
			Interval: s.duration(kp, "interval", k.GetInterval()),
			Timeout:  s.positive(kp, "timeout", k.GetTimeout(), http2PingTimeout),
		}
	}
	return h
}

func addHTTP2Fields(t *protofields.Table) {
	t.Add(&corev3.Http2ProtocolOptions{},
		protofields.Honour("hpack_table_size", "max_concurrent_streams", "initial_stream_window_size",
			"initial_connection_window_size", "allow_connect", "max_outbound_frames", "max_outbound_control_frames",
			"max_consecutive_inbound_frames_with_empty_payload", "max_inbound_priority_frames_per_stream",
			"max_inbound_window_update_frames_per_data_frame_sent", "connection_keepalive"),
		protofields.Ignore("a malformed message ends its stream alone, as RFC 9113 section 8.1.1 has it",
			"stream_error_on_invalid_http_messaging=true", "override_stream_error_on_invalid_http_message=true"),
		protofields.Ignore("there is one codec", "use_oghttp2_codec"),
		protofields.Ignore("strings are sent as they are where that is cheaper", "enable_huffman_encoding"),
		protofields.Ignore("max_request_headers_kb and max_response_headers_kb bound each field, too", "max_header_field_size_kb"),
		protofields.Ignore("METADATA frames are not read", "max_metadata_size"),
		protofields.Refuse("METADATA frames are not supported", "allow_metadata"),
		protofields.Refuse("bytes above 0x7f are allowed in values, as RFC 9110 section 5.5 has it", "disallow_obs_text"),
		protofields.Refuse("settings are sent as the other fields say", "custom_settings_parameters"))
	t.Add(&corev3.KeepaliveSettings{},
		protofields.Honour("interval", "timeout"),
		protofields.Ignore("a connection is probed when nothing has come on it for the interval, which differs from one to the next",
			"interval_jitter"),
		protofields.Ignore("idle connections are probed like others", "connection_idle_interval"))
}
