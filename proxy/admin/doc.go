// SPDX-License-Identifier: Apache-2.0

// Package admin is the proxy's administration server: it answers as Envoy's does, so that tools made for Envoy work
// unchanged, and has some endpoints of its own (/events, /circuits, /xds).
//
// It knows nothing of xds, the event tap or the data path: app hands it Views, functions that say what is, and do what is
// asked. An endpoint whose view is nil does not exist.
//
// The server is a security boundary. What changes something needs POST, and is refused where the request could have come
// from a web page: with an Origin header, or for a Host that is not local. Nothing that it prints holds control
// characters; the only HTML is at "/". A unix socket is made with mode 0600 before anyone can connect to it.
//
// Each connection has one goroutine, started by the accept loop and joined by Close. Answers of unknown size are written
// while they are made, never held whole. Connections are bounded; the last of them are kept for short answers such as
// /ready, so that slow dumps cannot take the server away from a health check.
package admin
