// SPDX-License-Identifier: Apache-2.0

// Package saved keeps a configuration on disk, so that a proxy can start while its control plane does not answer. It knows
// resources as bytes with names; package xds says what is kept, and when it is used.
//
// There is one file. It is written beside the old one, flushed to the disk and renamed over it, so that there is always a
// whole one; it ends with a checksum of all that stands before. It can be read by its owner alone, and what holds a key, a
// password or a token is left out of it all the same: see Secret.
package saved
