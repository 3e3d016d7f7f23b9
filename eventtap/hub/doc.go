// SPDX-License-Identifier: Apache-2.0

// Package hub keeps the last events in memory and shows them to readers in this process: the admin server's live stream,
// and whoever else subscribes. To the tap it is one more sink, whose acknowledgements are immediate.
//
// The history is bounded in bytes; the oldest events make room for new ones. A reader has no queue of its own: it is a
// place in the history, so a thousand of them cost next to nothing, and one that falls behind the oldest event is cut
// off and told how many it missed. Each reader encodes on its own goroutine. Neither can hold up the tap.
package hub
