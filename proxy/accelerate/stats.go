// SPDX-License-Identifier: Apache-2.0

package accelerate

import "github.com/meshtap/meshtap/internal/stats"

// The numbers, meshtap.accelerate.*. The kernel counts them; all are asked for when they are read.
const (
	// on is 1 where connections are spliced, and 0 where that was asked for and could not be had.
	on = iota
	// entered: a socket became one end of a pair; full: it found no place and uses plain TCP.
	entered
	full
	// splicedMessages and splicedBytes went from socket to socket.
	splicedMessages
	splicedBytes
	// leftToTCP: a direction of a pair went over to TCP, for its reader was slow or its other end had gone; passedMessages:
	// what entered sockets sent by TCP.
	leftToTCP
	passedMessages
)

var schema = &stats.Schema{
	Name: "meshtap.accelerate", Own: true,
	Defs: []stats.Def{
		on:              {Name: "on", Kind: stats.Gauge},
		entered:         {Name: "entered", Kind: stats.Gauge, Prom: "entered_total"},
		full:            {Name: "full", Kind: stats.Gauge, Prom: "full_total"},
		splicedMessages: {Name: "spliced_messages", Kind: stats.Gauge, Prom: "spliced_messages_total"},
		splicedBytes:    {Name: "spliced_bytes", Kind: stats.Gauge, Prom: "spliced_bytes_total"},
		leftToTCP:       {Name: "left_to_tcp", Kind: stats.Gauge, Prom: "left_to_tcp_total"},
		passedMessages:  {Name: "passed_messages", Kind: stats.Gauge, Prom: "passed_messages_total"},
	},
}

// Publish lists the numbers of s in a registry; s is nil where splicing could not be had. After Close they are 0.
func Publish(reg *stats.Registry, s *Sockmap) {
	g := reg.Group(schema, "meshtap.accelerate")
	if s == nil {
		g.Set(on, 0)
		return
	}
	g.Set(on, 1)
	for i, pick := range map[int]func(Counts) uint64{
		entered:         func(c Counts) uint64 { return c.Entered },
		full:            func(c Counts) uint64 { return c.Full },
		splicedMessages: func(c Counts) uint64 { return c.Messages },
		splicedBytes:    func(c Counts) uint64 { return c.Bytes },
		leftToTCP:       func(c Counts) uint64 { return c.Left },
		passedMessages:  func(c Counts) uint64 { return c.Passed },
	} {
		g.SetFunc(i, func() int64 {
			c, err := s.Counts()
			if err != nil {
				return 0 // closed
			}
			return int64(pick(c))
		})
	}
}
