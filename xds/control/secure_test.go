// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestRefusalsAreBounded: of handshakes that fail only so many are logged in a second; the next line counts the others.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	core, told := observer.New(zap.InfoLevel)
	r := &refusals{log: zap.New(core)}
	start := time.Unix(1, 0)
	for i := range 2000 {
		r.tell(start.Add(time.Duration(i)*time.Millisecond), &net.TCPAddr{Port: i}, "no certificate")
	}
	lines := told.All()
	if len(lines) != 2*maxRefusals {
		t.Fatalf("%d lines in two seconds, want %d", len(lines), 2*maxRefusals)
	}
	for i, line := range lines {
		fields := line.ContextMap()
		want, counted := any(nil), fields["not_logged"]
		if i == maxRefusals {
			want = int64(1000 - maxRefusals)
		}
		if counted != want || fields["reason"] != "no certificate" {
			t.Errorf("line %d: %v, want %v not logged", i, fields, want)
		}
	}
}
