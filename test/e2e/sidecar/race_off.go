// SPDX-License-Identifier: Apache-2.0

//go:build !race

package sidecar

// RaceEnabled says that the tests, and so the proxy, run under the race detector.
const RaceEnabled = false
