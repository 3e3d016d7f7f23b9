// SPDX-License-Identifier: Apache-2.0

//go:build !race

package header_test

const raceEnabled = false
