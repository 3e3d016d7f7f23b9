// SPDX-License-Identifier: Apache-2.0

// Package mono is the monotonic clock of the data path: nanoseconds since the process started, so that deadlines are
// plain numbers and a step of the wall clock changes none of them.
package mono

import "time"

// boot anchors the clock. It never changes.
var boot = time.Now()

// Now returns the nanoseconds since the process started.
func Now() int64 { return int64(time.Since(boot)) }

// Wall returns the wall clock at t, as it was when the process started, in nanoseconds since 1970.
func Wall(t int64) int64 { return boot.UnixNano() + t }

// Time returns Wall as a time.Time.
func Time(t int64) time.Time { return boot.Add(time.Duration(t)) }
