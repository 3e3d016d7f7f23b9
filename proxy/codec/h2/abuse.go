// SPDX-License-Identifier: Apache-2.0

package h2

import "time"

// abuse counts what a peer can do cheaply and we cannot, on behalf of the turn. What a limit is for is at its place in
// Config.
type abuse struct {
	cfg    *Config
	resets bucket
	pings  bucket

	opened, closed, premature int // streams; the last two since they were halved
	emptyData                 int // in a row
	priorities, windows       int
}

// Of these floods, Envoy has counters.
var (
	errEmptyFlood    = connError(EnhanceYourCalm, "too many empty DATA frames")
	errPriorityFlood = connError(EnhanceYourCalm, "too many PRIORITY frames")
	errWindowFlood   = connError(EnhanceYourCalm, "too many WINDOW_UPDATE frames")
	errFlood         = connError(EnhanceYourCalm, "the peer does not read what it makes us send")
	errControlFlood  = connError(EnhanceYourCalm, "the peer does not read the answers to its control frames")
)

// prematureAge is how old a stream has to be for its reset to be nobody's fault.
const prematureAge = int64(time.Second)

// slack is what counts of frames are free beside what a limit says for each stream or frame.
const slack = 100

// bucket is a token bucket.
type bucket struct {
	tokens, burst, rate float64 // rate is per second
	at                  int64   // mono
}

func (b *bucket) take(now int64) bool {
	b.tokens = min(b.burst, b.tokens+b.rate*float64(now-b.at)/float64(time.Second))
	b.at = now
	b.tokens--
	return b.tokens >= 0
}

func (a *abuse) init(cfg *Config, now int64) {
	*a = abuse{cfg: cfg}
	a.resets = bucket{float64(cfg.ResetBurst), float64(cfg.ResetBurst), float64(cfg.Resets), now}
	a.pings = bucket{slack, slack, float64(cfg.Pings), now}
}

// useful notes a frame that carries something, which earns a PING: some clients measure the round trip with each burst.
func (a *abuse) useful() { a.pings.tokens = min(a.pings.tokens+1, a.pings.burst) }

// ping notes a PING or SETTINGS frame.
func (a *abuse) ping(now int64) error {
	if !a.pings.take(now) {
		return connError(EnhanceYourCalm, "too many PING or SETTINGS frames")
	}
	return nil
}

// reset notes a stream that was reset by the peer or for its fault.
func (a *abuse) reset(now int64, premature bool) error {
	if !a.resets.take(now) {
		return connError(EnhanceYourCalm, "too many resets")
	}
	if premature {
		a.premature++
	}
	if n := a.cfg.PrematureStreams; n > 0 && a.closed >= n && 2*a.premature > a.closed {
		return connError(EnhanceYourCalm, "too many streams reset at once")
	}
	return nil
}

// end notes the end of a stream. Old ones weigh less and less, so that a connection cannot save up good ones.
func (a *abuse) end() {
	if a.closed++; a.cfg.PrematureStreams > 0 && a.closed >= 2*a.cfg.PrematureStreams {
		a.closed /= 2
		a.premature /= 2
	}
}

// data notes a DATA frame.
func (a *abuse) data(empty bool) error {
	if !empty {
		a.emptyData = 0
		return nil
	}
	if a.emptyData++; a.emptyData > a.cfg.EmptyData {
		return errEmptyFlood
	}
	return nil
}

// priority notes a PRIORITY frame.
func (a *abuse) priority() error {
	if a.priorities++; a.priorities > slack+a.cfg.Priorities*a.opened {
		return errPriorityFlood
	}
	return nil
}

// window notes a WINDOW_UPDATE frame; sent is how many DATA frames were sent.
func (a *abuse) window(sent int) error {
	if a.windows++; a.windows > slack+2*a.opened+a.cfg.WindowUpdates*sent {
		return errWindowFlood
	}
	return nil
}
