// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
)

// clock writes the date of answers (RFC 9110 section 6.6.1), once for each second in which there are any.
type clock struct{ now atomic.Pointer[second] }

type second struct {
	until int64 // mono
	text  string
}

func (c *clock) date() string {
	at := mono.Now()
	if s := c.now.Load(); s != nil && at < s.until {
		return s.text
	}
	// The wall clock is asked, so that a step of it is followed.
	t := time.Now()
	s := &second{until: at + int64(time.Second) - int64(t.Nanosecond()), text: t.UTC().Format(http.TimeFormat)}
	c.now.Store(s)
	return s.text
}
