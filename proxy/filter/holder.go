// SPDX-License-Identifier: Apache-2.0

package filter

// Holder is a Filter by which a connection manager knows that requests for virtual hosts that are not there are to be held
// while these are asked for.
type Holder interface {
	Filter
	HoldsRequests()
}
