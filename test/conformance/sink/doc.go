// SPDX-License-Identifier: Apache-2.0

// Package sink is what every event sink must pass: delivery, order per key, no loss over a reconnect, the id by which
// repeats are dropped, back-pressure, big events, dead letters, credentials, TLS, and a Close that flushes. A sink's own tests run it with a bus that
// they can kill and revive.
package sink
