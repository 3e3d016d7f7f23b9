// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"slices"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/spool"
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
	// Modes say what happens to the events of each kind, at the sinks that say nothing else.
	Modes [event.NumKinds]Mode
	// ClientNetwork puts the client's network into events; without it there is nothing of the client's address.
	ClientNetwork bool
	Source        Source
	// Policy is for what no other one is for; Selections come before it.
	Policy     Policy
	Selections []Selection
	Key        Key
	Sinks      []SinkConfig
	Spool      SpoolConfig
}

// Mode is what happens to an event of a class at a sink.
type Mode uint8

// The modes. None of them makes a request wait.
const (
	// Default is Off for attempts and DropNewest for everything else.
	Default Mode = iota
	// DropNewest keeps the event where there is room.
	DropNewest
	// Off makes no such events, or does not send them to the sink.
	Off
	// DropOldest keeps the event and drops the oldest that are DropOldest.
	DropOldest
	// Sample thins events out when more than half of the sink's memory is in use.
	Sample
	// Spool keeps the event on the disk until it is delivered.
	Spool
)

// settle replaces what is Default.
func settle(m [event.NumKinds]Mode) [event.NumKinds]Mode {
	for k := range m {
		if m[k] != Default {
			continue
		}
		if m[k] = DropNewest; event.Kind(k) == event.Attempt {
			m[k] = Off
		}
	}
	return m
}

// Key is what the partition key of outcomes is taken from.
type Key struct {
	By KeyBy
	// Header is the name, in lower case, for KeyByHeader.
	Header string
}

// KeyBy says where a partition key is from.
type KeyBy uint8

// The partition keys. Where there is none, it is the cluster.
const (
	KeyByCluster KeyBy = iota
	KeyByHeader
	KeyByRoute
	KeyBySource
	KeyByTrace
)

// SpoolConfig is the disk behind the sinks that have a kind in the mode Spool.
type SpoolConfig struct {
	// Dir holds a folder for each sink.
	Dir string
	// MaxBytes bounds the spool of one sink, in bytes.
	MaxBytes int64
	// Refuse keeps what is there when it is full; otherwise the oldest goes.
	Refuse bool
	Commit spool.Commit
	// Every is the time between two flushes, and between two saves of the cursor.
	Every time.Duration
	// KeyFile holds the key of the encryption; "" is none.
	KeyFile string
}

// The defaults of a spool.
const (
	DefaultSpoolBytes = 256 << 20
	DefaultCommit     = 50 * time.Millisecond
)

// Source replaces parts of the source attribute where they are not "".
type Source struct {
	Cluster, Namespace, Workload, Proxy string
}

// SinkConfig is one sink.
type SinkConfig struct {
	Name, TypeURL string
	// Config is what the sink's Parse made.
	Config any
	// Modes, where it is not nil, says what happens to the events of each kind here.
	Modes *[event.NumKinds]Mode
}

// modes returns the modes of a sink.
func (c *Config) modes(s *SinkConfig) [event.NumKinds]Mode {
	if s.Modes != nil {
		return settle(*s.Modes)
	}
	return settle(c.Modes)
}

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
	if len(c.Selections) > MaxSelections {
		return fmt.Errorf("eventtap: %d selections, at most %d are allowed", len(c.Selections), MaxSelections)
	}
	for i := range c.Sinks {
		if m := c.modes(&c.Sinks[i]); slices.Contains(m[:], Spool) && c.Spool.Dir == "" {
			return fmt.Errorf("eventtap: sink %q has the mode SPOOL, and there is no spool", c.Sinks[i].Name)
		}
	}
	return nil
}
