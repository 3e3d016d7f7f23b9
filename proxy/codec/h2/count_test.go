// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// moved are the numbers that are not 0, in the order of their names.
func moved(reg *stats.Registry) string {
	var all []string
	reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if m.Value != 0 {
			all = append(all, fmt.Sprintf("%s=%d", strings.TrimPrefix(string(m.AppendName(nil)), "http2."), m.Value))
		}
		return true
	})
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Each event of a connection is counted under the name that Envoy has for it.
func TestCounts(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 8)
	post := aFrame(frameHeaders, flagEndHeaders, 1, string(aHead))
	repeat := func(n int, f []byte) []byte { return slices.Concat(slices.Repeat([][]byte{f}, n)...) }
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"nothing", nil, ""},
		{"a stream that is served", post, "streams_active=1"},
		{"reset by the client", slices.Concat(post, aFrame(frameReset, 0, 1, zeros[:4])), "rx_reset=1 streams_active=1"},
		{"refused by the client", slices.Concat(post, aFrame(frameReset, 0, 1, "\x00\x00\x00\x07")), "rx_reset=1 stream_refused_errors=1 streams_active=1"},
		{"malformed", aFrame(frameHeaders, 5, 1, "\x82"), "rx_messaging_error=1 tx_reset=1"},
		{"trailers", slices.Concat(post, aFrame(frameHeaders, 5, 1, "\x00\x01a\x01b")), "streams_active=1 trailers=1"},
		{"malformed trailers", slices.Concat(post, aFrame(frameHeaders, 5, 1, "\x82")), "rx_messaging_error=1 streams_active=1 tx_reset=1"},
		{"more body than told", slices.Concat(aFrame(frameHeaders, 4, 1, string(aHead)+"\x0f\x0d\x011"), aFrame(frameData, 0, 1, "ab")),
			"rx_messaging_error=1 streams_active=1 tx_reset=1"},
		{"a large head", aFrame(frameHeaders, 5, 1, string(aHead)+strings.Repeat("\x00\x01a\x01b", 101)), "header_overflow=1 streams_active=1"},
		{"HEADERS behind the end", slices.Concat(aFrame(frameHeaders, 5, 3, string(aHead)), aFrame(frameHeaders, 5, 1, string(aHead))),
			"goaway_sent=1 headers_cb_no_stream=1 streams_active=1"},
		{"empty DATA", slices.Concat(post, repeat(3, aFrame(frameData, 0, 1, ""))), "goaway_sent=1 inbound_empty_frames_flood=1 streams_active=1"},
		{"PRIORITY", repeat(200, aFrame(framePriority, 0, 1, zeros[:5])), "goaway_sent=1 inbound_priority_frames_flood=1"},
		{"WINDOW_UPDATE", repeat(200, aFrame(frameWindowUpdate, 0, 0, "\x00\x00\x00\x01")), "goaway_sent=1 inbound_window_update_frames_flood=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			reg := stats.NewRegistry(stats.Options{})
			cfg := Defaults()
			cfg.Stats = metrics.NewDownstreamHTTP2(reg)
			s := newTarget(x, &cfg)
			x.do(func(w *socket.Worker) {
				_ = s.take(w, s.now, c.in)
				if got := moved(reg); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				s.finish()
				s.Close(w, NoError)
				if n := cfg.Stats.Value(metrics.HTTP2StreamsActive); n != 0 {
					t.Errorf("%d streams at the end", n)
				}
			})
		})
	}
}

// A peer that does not read what it makes us send, does not answer, or gives no window is counted as that.
func TestCountsOfSilence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		play func(s *target, cfg *Config, w *socket.Worker)
		want string
	}{
		{"no answer to PING", func(s *target, cfg *Config, w *socket.Worker) {
			now := s.now + int64(cfg.PingInterval)
			_ = s.take(w, now)
			_ = s.take(w, now+int64(cfg.PingTimeout))
		}, "goaway_sent=1 keepalive_timeout=1"},
		{"answers to PING", func(s *target, cfg *Config, w *socket.Worker) {
			s.c.full = true
			cfg.ControlFrames, cfg.Pings = 10, 1000
			_ = s.take(w, s.now, slices.Repeat(aFrame(framePing, 0, 0, "12345678"), 20))
		}, "goaway_sent=1 outbound_control_flood=1"},
		{"no window", func(s *target, cfg *Config, w *socket.Worker) {
			st := s.held[0]
			if rest, done := st.appendData(make([]byte, 100<<10), true); done || len(rest) == 0 {
				return
			}
			st.waits()
			st.waiting = s.now
			_ = s.take(w, s.now+int64(cfg.StallTimeout))
		}, "streams_active=1 tx_flush_timeout=1 tx_reset=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			reg := stats.NewRegistry(stats.Options{})
			cfg := Defaults()
			cfg.Stats = metrics.NewDownstreamHTTP2(reg)
			s := newTarget(x, &cfg)
			x.do(func(w *socket.Worker) {
				first := [][]byte{aFrame(frameHeaders, flagEndHeaders, 1, string(aHead))}
				if c.name != "no window" {
					first = nil
				}
				_ = s.take(w, s.now, first...)
				c.play(s, &cfg, w)
				if got := moved(reg); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				s.finish()
				s.Close(w, NoError)
			})
		})
	}
}
