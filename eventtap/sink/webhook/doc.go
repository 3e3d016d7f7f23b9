// SPDX-License-Identifier: Apache-2.0

// Package webhook is the event sink that posts to an HTTP server, as the CloudEvents HTTP protocol binding 1.0 says: batches,
// one whole event a request, or the binary mode with the attributes as headers ce-* and the data as body. An event counts as
// delivered with an answer of the class 2xx.
//
// There is one request at a time, so the order of all holds. A request of which nothing is heard, or that is answered with
// 429, 5xx or any other status that may pass, is sent again, not before the answer's Retry-After; the server may have had it,
// and drops repeats by the events' ids. Events are refused for good where the server says so of what they are: 400, 413, 415
// and 422. A batch that is refused is sent again in halves, until it is known which events are to blame.
//
// # Signature
//
// With a key, each request is signed as Standard Webhooks 1.0 says: webhook-id names the content, the same when it is sent
// again; webhook-timestamp is the time of the attempt, in seconds since 1970; webhook-signature is "v1," and the base64 form of
// the HMAC-SHA256 of "<webhook-id>.<webhook-timestamp>.<body>", one for each key, separated by spaces. In the binary mode the
// attributes are headers, which the signature does not cover; the others sign everything.
package webhook
