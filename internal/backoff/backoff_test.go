// SPDX-License-Identifier: Apache-2.0

package backoff_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/backoff"
)

func TestNextDoublesUpToMax(t *testing.T) {
	t.Parallel()
	almostOne := func() float64 { return 0.999999 }
	b := backoff.Backoff{Base: time.Second, Max: 30 * time.Second}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		got := b.Next(almostOne)
		if got > want*time.Second || got < want*time.Second*99/100 {
			t.Errorf("try %d: got %v, want just below %v", i, got, want*time.Second)
		}
	}
	if b.Tries() != 8 {
		t.Errorf("Tries() = %d, want 8", b.Tries())
	}
	b.Reset()
	if got := b.Next(almostOne); got > time.Second {
		t.Errorf("after Reset: got %v, want at most 1s", got)
	}
}

func TestNextStaysWithinBounds(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	b := backoff.Backoff{Base: 100 * time.Millisecond, Max: time.Hour, Floor: 20 * time.Millisecond}
	for i := range 2000 {
		if got := b.Next(r.Float64); got < b.Floor || got >= b.Max {
			t.Fatalf("try %d: %v is outside [%v, %v)", i, got, b.Floor, b.Max)
		}
	}
}

func TestNextWithoutRoomForJitter(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		b    backoff.Backoff
		want time.Duration
	}{
		{"zero value", backoff.Backoff{}, 0},
		{"floor above bound", backoff.Backoff{Base: 1, Max: 10, Floor: 50}, 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.b.Next(rand.Float64); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
