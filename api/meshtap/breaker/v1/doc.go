// SPDX-License-Identifier: Apache-2.0

// Package breakerv1 is the generated form of the circuit breaker's configuration. Only xds reads it; what it says travels
// on as mesh.Breaker.
package breakerv1
