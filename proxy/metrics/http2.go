// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/meshtap/meshtap/internal/stats"

// The numbers of the HTTP/2 codec, http2.* for all clients' connections and cluster.<name>.http2.*. All are moved by
// codec/h2, unless said otherwise.
const (
	// HTTP2StreamsActive is the streams that somebody serves or uses.
	HTTP2StreamsActive = iota
	// HTTP2RxReset and HTTP2TxReset: a RST_STREAM came, was sent.
	HTTP2RxReset
	HTTP2TxReset
	// HTTP2Trailers: trailer fields came behind a message.
	HTTP2Trailers
	// HTTP2PendingSendBytes is the bytes of bodies that wait for a window.
	HTTP2PendingSendBytes
	// HTTP2GoAwaySent: a GOAWAY was sent.
	HTTP2GoAwaySent
	// HTTP2HeaderOverflow: a head or a trailer section was larger than the limits. The request is answered, or fails.
	HTTP2HeaderOverflow
	// HTTP2HeadersNoStream: a header block came for a stream that has ended.
	HTTP2HeadersNoStream
	// HTTP2RxMessagingError: a stream was reset because what came on it is not HTTP (RFC 9113 section 8).
	HTTP2RxMessagingError
	// HTTP2StreamRefused: a stream was reset with REFUSED_STREAM by the peer.
	HTTP2StreamRefused
	// HTTP2KeepAliveTimeout: a connection was ended because the peer did not answer a PING.
	HTTP2KeepAliveTimeout
	// HTTP2TxFlushTimeout: a stream was reset because the peer gave it no window for too long.
	HTTP2TxFlushTimeout
	// HTTP2EmptyFlood, HTTP2PriorityFlood and HTTP2WindowFlood: a connection was ended because of too many empty DATA,
	// PRIORITY or WINDOW_UPDATE frames.
	HTTP2EmptyFlood
	HTTP2PriorityFlood
	HTTP2WindowFlood
	// HTTP2OutboundFlood and HTTP2OutboundControlFlood: a connection was ended because its peer does not read what it makes
	// us send.
	HTTP2OutboundFlood
	HTTP2OutboundControlFlood
	// HTTP2DroppedUnderscores and HTTP2RejectedUnderscores: a name with an underscore cost a field, or a request. By
	// downstream.
	HTTP2DroppedUnderscores
	HTTP2RejectedUnderscores

	numHTTP2
)

var (
	downstreamHTTP2Schema = http2Schema("http2", "")
	clusterHTTP2Schema    = http2Schema("cluster", "http2.")
)

func http2Schema(of, prefix string) *stats.Schema {
	defs := make([]stats.Def, numHTTP2)
	for i, name := range []string{
		HTTP2StreamsActive: "streams_active", HTTP2RxReset: "rx_reset", HTTP2TxReset: "tx_reset", HTTP2Trailers: "trailers",
		HTTP2PendingSendBytes: "pending_send_bytes", HTTP2GoAwaySent: "goaway_sent", HTTP2HeaderOverflow: "header_overflow",
		HTTP2HeadersNoStream: "headers_cb_no_stream", HTTP2RxMessagingError: "rx_messaging_error",
		HTTP2StreamRefused: "stream_refused_errors", HTTP2KeepAliveTimeout: "keepalive_timeout",
		HTTP2TxFlushTimeout: "tx_flush_timeout", HTTP2EmptyFlood: "inbound_empty_frames_flood",
		HTTP2PriorityFlood: "inbound_priority_frames_flood", HTTP2WindowFlood: "inbound_window_update_frames_flood",
		HTTP2OutboundFlood: "outbound_flood", HTTP2OutboundControlFlood: "outbound_control_flood",
		HTTP2DroppedUnderscores:  "dropped_headers_with_underscores",
		HTTP2RejectedUnderscores: "requests_rejected_with_underscores_in_headers",
	} {
		defs[i] = stats.Def{Name: prefix + name, Lazy: true}
	}
	defs[HTTP2StreamsActive].Kind, defs[HTTP2PendingSendBytes].Kind = stats.Gauge, stats.Gauge
	return &stats.Schema{Name: of, Defs: defs}
}

// HTTP2 is the numbers of the HTTP/2 codec of one side.
type HTTP2 struct{ *stats.Group }

// NewDownstreamHTTP2 returns the numbers of clients' connections. Release gives them back.
func NewDownstreamHTTP2(reg *stats.Registry) *HTTP2 {
	return &HTTP2{reg.Group(downstreamHTTP2Schema, "http2")}
}

// NewClusterHTTP2 returns the numbers of the connections to the cluster with this name. Release gives them back.
func NewClusterHTTP2(reg *stats.Registry, name string) *HTTP2 {
	name = StatName(name)
	return &HTTP2{reg.Group(clusterHTTP2Schema, "cluster."+name, stats.Tag{Name: tagCluster, Value: name})}
}

// Begin notes a connection. From the first on, all numbers are listed, as in Envoy.
func (h *HTTP2) Begin() {
	for i := range numHTTP2 {
		h.Add(0, i, 0)
	}
}
