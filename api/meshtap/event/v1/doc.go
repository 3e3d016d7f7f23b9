// SPDX-License-Identifier: Apache-2.0

// Package eventv1 is the generated form of the events' data, for those who read events in Go. Meshtap itself writes and
// reads them by hand, in eventtap/event, and uses this package in tests alone.
package eventv1
