// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress tells how far a run is: on a terminal in one line that changes, elsewhere in a line per step.
type progress struct {
	out         io.Writer
	terminal    bool
	total, n    int
	began       time.Time
	lineStands  bool
	currentTime func() time.Time
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, currentTime: time.Now}
	if f, ok := out.(*os.File); ok {
		s, err := f.Stat()
		p.terminal = err == nil && s.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// step tells of the measurement that begins.
func (p *progress) step(format string, args ...any) {
	now := p.currentTime()
	if p.n == 0 {
		p.began = now
	}
	text := fmt.Sprintf(format, args...) + fmt.Sprintf(" (%d of %d", p.n+1, p.total)
	if p.n > 0 {
		left := now.Sub(p.began) / time.Duration(p.n) * time.Duration(p.total-p.n)
		text += fmt.Sprintf(", about %v left", left.Round(time.Second))
	}
	p.n++
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s)", text)
		p.lineStands = true
		return
	}
	fmt.Fprintf(p.out, "%s)\n", text)
}

// say tells something that stays.
func (p *progress) say(format string, args ...any) {
	p.done()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// done takes the changing line away.
func (p *progress) done() {
	if p.lineStands {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.lineStands = false
	}
}
