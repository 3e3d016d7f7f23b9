// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
)

// The limits of a configuration.
const (
	DefaultMemory = 8 << 20
	MinMemory     = 4 << 20
	MaxMemory     = 1 << 30
	MaxSinks      = 8
	// minShare is the least that a sink's queue and buffers need.
	minShare = 512 << 10
)

// Config is what a Tap does. It is immutable.
type Config struct {
	// Memory bounds all queues and buffers of the tap, in bytes: a quarter for the rings, a quarter for the hub, and one
	// half for the sinks in equal shares.
	Memory int
	// Off are the kinds of which no events are made.
	Off [event.NumKinds]bool
	// ClientNetwork puts the client's network into events; without it there is nothing of the client's address.
	ClientNetwork bool
	Source        Source
	Sinks         []SinkConfig
}

// Source replaces parts of the source attribute where they are not "".
type Source struct {
	Cluster, Namespace, Workload, Proxy string
}

// SinkConfig is one sink; Extension.Name is the sink's.
type SinkConfig = mesh.Extension

// HubBytes is the part of the memory that the in-process hub may use for its history.
func (c *Config) HubBytes() int { return c.Memory / 16 * 3 }

// localBytes is the part for the queues and buffers of the sinks in this process.
func (c *Config) localBytes() int { return c.Memory / 16 }

func (c *Config) ringBytes() int { return c.Memory / 4 }

// sinkBytes is the share of one sink.
func (c *Config) sinkBytes() int { return c.Memory / 2 / max(len(c.Sinks), 1) }

// validate checks what concerns several fields together.
func (c *Config) validate() error {
	if c.Memory < MinMemory || c.Memory > MaxMemory {
		return fmt.Errorf("eventtap: %d bytes of memory, from %d to %d are allowed", c.Memory, MinMemory, MaxMemory)
	}
	if c.sinkBytes() < minShare {
		return fmt.Errorf("eventtap: %d bytes of memory are too few for %d sinks, at least %d are needed",
			c.Memory, len(c.Sinks), 2*minShare*len(c.Sinks))
	}
	return nil
}
