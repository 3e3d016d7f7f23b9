// SPDX-License-Identifier: Apache-2.0

// Package bootstrap reads the start-up file: Envoy's bootstrap, in YAML or JSON, with an optional override.
//
// The text is walked beside the descriptors of Envoy's messages, into typed configurations, too, so that every error
// has a line and a column, a misspelt name gets a suggestion, and all errors come out in one run. What is sound becomes
// a message; its resources are decoded by xds/resource, and what that finds is led back from field paths to positions.
//
// The package reads files and starts no goroutine. Nothing of it is used once the process runs.
package bootstrap
