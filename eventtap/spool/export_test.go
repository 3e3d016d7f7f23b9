// SPDX-License-Identifier: Apache-2.0

package spool

// SegmentBytes is the size of a segment.
func (c *Config) SegmentBytes() int64 { return c.segmentBytes() }

// FrameSize is what stands before a payload, HeadSize what stands before the first frame.
const (
	FrameSize = frameSize
	HeadSize  = headSize
)
