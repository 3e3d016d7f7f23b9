// SPDX-License-Identifier: Apache-2.0

// Package cloudeventsv1 is the generated form of the protobuf format of CloudEvents 1.0. Meshtap itself writes and reads
// it by hand, in eventtap/event, and uses this package in tests alone.
package cloudeventsv1
