// SPDX-License-Identifier: Apache-2.0

package stdout

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// pipe is a writer that can break, and then takes a part of what it is given.
type pipe struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	broken bool
	part   int
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		n := min(p.part, len(b))
		p.part = 0
		p.buf.Write(b[:n])
		return n, errors.New("broken pipe")
	}
	return p.buf.Write(b)
}

func (p *pipe) lines(*testing.T) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sink.Lines(bytes.Clone(p.buf.Bytes()))
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sink.Run(t, func(*testing.T) sink.Bus {
		p := &pipe{}
		set := func(broken bool) func(*testing.T) {
			return func(*testing.T) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.broken, p.part = broken, 100
			}
		}
		return sink.Bus{
			Sink:   func(*testing.T) eventtap.Sink { return New(p) },
			Events: p.lines, Kill: set(true), Revive: set(false),
		}
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	row := Rows(&pipe{})[0]
	if p, err := row.Parse(TypeURL, nil); err != nil || p.Config != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := row.Parse(TypeURL, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)); err == nil {
		t.Error("a field of the future was accepted")
	}
	if s, err := row.Build(nil, eventtap.SinkDeps{}); err != nil || s == nil {
		t.Errorf("%v, %v", s, err)
	}
}
