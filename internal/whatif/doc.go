// SPDX-License-Identifier: Apache-2.0

// Package whatif runs recorded requests through other settings of load balancing, circuit breaking, outlier detection, retries
// and timeouts, and says what would have come of them. It decides with the packages that the proxy decides with, lb and
// circuit, in a discrete-event loop over the recorded times of arrival. It is pure: the same recording, policy and seed
// give the same result; it reads no clock and starts no goroutine.
//
//	events -> Recording -> Run(Policy, Model) -> Result
//
// What a host would have answered to a request that it never got, nobody knows: the Model makes it up, from what the host
// did answer at that time or from a distribution. So the model does not know
//   - queueing: a host that gets more load is not slower, and one that gets less is not faster;
//   - how long an attempt would have taken that was cut off by a timeout or a client: it is taken to hang;
//   - what depends on the request: an answer that is drawn is another request's;
//   - clients: they neither give up nor repeat by themselves;
//   - connections, active health checks, hash policies, localities and fallbacks, which are left out;
//   - attempts that no event tells of: of a request, the first four and the last are known.
package whatif
