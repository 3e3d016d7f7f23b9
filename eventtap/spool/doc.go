// SPDX-License-Identifier: Apache-2.0

// Package spool keeps records on a disk until they are acknowledged: what stands between the event tap and a bus that is
// slow or away. It knows bytes and sequence numbers, and nothing of events.
//
// A spool is a folder that one process may use at a time:
//
//	lock                          held while the spool is open
//	cursor                        up to which record everything is acknowledged
//	00000000000000000001.seg      a segment: a head, and records from this number on
//	00000000000000004712.seg      the next; the last one is written to
//	spare                         a segment that is done with, to be written over
//
// A record is numbered by the spool, from 1 on and over all runs. In its segment it stands in a frame with its length,
// its number and a CRC-32C of all of them, so that what was torn off by a crash, or turned on the disk, is seen and
// never read as a record. Each run begins a segment of its own, and so does a write or an fsync that failed: after a
// failed fsync Linux may say "done" of the same pages although they are gone, so the segment is never trusted again,
// and what was not yet safe in it is written once more elsewhere.
//
// What was appended last also stays in memory, as far as Config.Groups says, and Read takes it from there: a reader that keeps
// up does not touch the disk. It is there once it may be read from the disk, and not before.
//
// One goroutine writes (Append, Sync, Mark, Save), one reads (Read); Ack and Position may be called from any. Nothing here
// starts a goroutine or reads a clock. No lock is held while the disk is waited for.
package spool
