// SPDX-License-Identifier: Apache-2.0

// Package origin holds the servers behind a proxy under test. They answer with what they were asked, in a form that can be
// compared byte by byte, and misbehave where a request asks for it.
package origin
