// SPDX-License-Identifier: Apache-2.0

// Package tlsconf turns a mesh.TLSContext into what crypto/tls works with, and says which certificates of the other side
// are good. Connections of the data path (proxy/transport) and those to control planes (xds/ads) are made with it, so that
// both refuse the same. It opens no connection.
package tlsconf
