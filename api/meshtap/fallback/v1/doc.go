// SPDX-License-Identifier: Apache-2.0

// Package fallbackv1 is the generated form of a route's fallback. Only xds reads it; what it says travels on as
// mesh.Fallback.
package fallbackv1
