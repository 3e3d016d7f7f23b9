// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package sys

// eventData is the data of an epoll_event, aligned to eight bytes on this architecture.
type eventData struct{ v uint64 }

func (d *eventData) get() uint64  { return d.v }
func (d *eventData) set(v uint64) { d.v = v }
