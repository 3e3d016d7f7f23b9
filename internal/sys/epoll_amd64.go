// SPDX-License-Identifier: Apache-2.0

package sys

// eventData is the data of an epoll_event, which is packed on this architecture.
type eventData struct{ lo, hi uint32 }

func (d *eventData) get() uint64  { return uint64(d.lo) | uint64(d.hi)<<32 }
func (d *eventData) set(v uint64) { d.lo, d.hi = uint32(v), uint32(v>>32) }
