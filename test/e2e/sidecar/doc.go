// SPDX-License-Identifier: Apache-2.0

// Package sidecar runs proxies as processes, for the tests that look at the product from outside: the built meshtap
// binary, or an envoy that stands for what it should do. It waits for what a proxy logs and never for a time, and it
// fails the test when a process hangs, panics, or is caught in a data race.
package sidecar
