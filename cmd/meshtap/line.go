// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/event"
)

// printer shows events, one after the other, in the format of its screen.
type printer struct {
	s    *cli.Screen
	rows *cli.Stream
	// day is the date of the row before; at the beginning it is today.
	day string
	// zone is the person's.
	zone *time.Location
}

// indent is where the lines below a row begin: under the second column.
const indent = len("15:04:05.000") + 2

func newPrinter(s *cli.Screen, now time.Time) *printer {
	cols := []cli.Column{{Name: "TIME"}, {Name: "FROM → TO", Flex: 17}, {Name: "REQUEST", Flex: 25}, {Name: "RESULT"}, {Name: "TOOK", Right: true}}
	widths := []int{12, 17, 25, 11, 7}
	if s.Format == cli.Wide {
		cols = append(cols, cli.Column{Name: "HOST"}, cli.Column{Name: "TRIES", Right: true}, cli.Column{Name: "CIRCUIT"}, cli.Column{Name: "PROXY"}, cli.Column{Name: "ID"})
		widths = append(widths, 21, 5, 9, 12, 36)
		w := *s
		w.Width = 0 // wide is not cut
		s = &w
	}
	return &printer{s: s, rows: cli.NewStream(s, cols, widths), day: now.Format(time.DateOnly), zone: now.Location()}
}

// event shows one event.
func (p *printer) event(e *shown, asJSON func() []byte) error {
	switch p.s.Format {
	case cli.JSON:
		return p.s.JSON(json.RawMessage(asJSON()))
	case cli.JSONL:
		var b bytes.Buffer
		if err := json.Compact(&b, asJSON()); err != nil {
			return err
		}
		p.s.RawJSON(b.Bytes())
		return nil
	}
	if p.s.Format == cli.Compact {
		p.compact(p.time(e.Time), e)
		return nil
	}
	p.rows.Head()
	p.row(p.time(e.Time), e)
	return nil
}

// time returns the time of day, after telling of a new day.
func (p *printer) time(nano int64) string {
	t := time.Unix(0, nano).In(p.zone)
	if day := t.Format(time.DateOnly); day != p.day {
		p.day = day
		p.s.Line(cli.Cell{Text: day, Style: cli.Faint})
	}
	return t.Format("15:04:05.000")
}

// row shows the event in columns, and below it what went wrong.
func (p *printer) row(at string, e *shown) {
	edge := cli.T(edgeOf(e))
	if e.Kind != event.Request && e.Kind != event.Connection {
		text, style := story(e)
		p.rows.Row(cli.T(at), edge, cli.Cell{Text: text, Style: style})
		p.below(rejections(e), "")
		return
	}
	result, style := resultOf(e)
	cells := []cli.Cell{cli.T(at), edge, cli.T(requestOf(e)), {Text: result, Style: style}, cli.T(took(e.Numbers[event.Duration]))}
	if p.s.Format == cli.Wide {
		cells = append(cells, cli.T(peerOf(e)), cli.T(strconv.FormatInt(e.Numbers[event.Attempts], 10)), cli.T(e.text(event.CircuitState)),
			cli.T(proxyOf(string(e.Source))), cli.T(idOf(e)))
	}
	p.rows.Row(cells...)
	p.below(reasons(e), next(e))
}

// below prints lines that belong to the row before them; next is what ends the last of them, on however narrow a
// terminal.
func (p *printer) below(lines []string, next string) {
	for i, l := range lines {
		corner, tail := "├ ", ""
		if i == len(lines)-1 {
			corner, tail = "└ ", next
		}
		p.rows.Below(indent, corner, cli.Cell{Text: l, Style: cli.Faint}, tail)
	}
}

// compact shows the event in one line without columns.
func (p *printer) compact(at string, e *shown) {
	if e.Kind != event.Request && e.Kind != event.Connection {
		text, style := story(e)
		p.s.Line(cli.T(at+" "+edgeOf(e)+" "), cli.Cell{Text: text, Style: style})
		return
	}
	result, style := resultOf(e)
	tail := " " + took(e.Numbers[event.Duration])
	if n := e.Numbers[event.Attempts]; n > 1 {
		tail += fmt.Sprintf(" tries=%d", n)
	}
	if f := e.text(event.ErrorType); f != "" {
		tail += " " + f
	}
	p.s.Line(cli.T(at+" "+edgeOf(e)+" "+requestOf(e)+" "), cli.Cell{Text: result, Style: style}, cli.T(tail))
}

// note shows a line between events that is none, and reports whether the format has a place for it.
func (p *printer) note(text string) bool {
	if p.s.Format == cli.JSON || p.s.Format == cli.JSONL {
		return false
	}
	p.s.Line(cli.Cell{Text: text, Style: cli.Bad})
	return true
}

func edgeOf(e *shown) string {
	switch {
	case e.from == "" && e.to == "":
		return "-"
	case e.to == "" && e.Kind != event.Request && e.Kind != event.Connection:
		return e.from
	}
	return or(e.from, "*") + " → " + or(e.to, "-")
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func requestOf(e *shown) string {
	if e.Kind == event.Connection {
		return fmt.Sprintf("tcp %s in, %s out", size(e.Numbers[event.RequestBodySize]), size(e.Numbers[event.ResponseBodySize]))
	}
	return or(e.text(event.Method), "-") + " " + or(e.text(event.Route), or(e.text(event.RouteName), "-"))
}

// resultOf returns the status and the response flags, and what they mean.
func resultOf(e *shown) (string, cli.Style) {
	status, flags := e.Numbers[event.Status], e.text(event.ResponseFlags)
	text, style := "-", cli.Plain
	switch {
	case status > 0:
		text = strconv.FormatInt(status, 10)
	case e.Kind == event.Connection && flags == "":
		text = "ok"
	}
	switch {
	case status >= 500:
		style = cli.Bad
	case status >= 400, flags != "":
		style = cli.Warning
	case status >= 300:
		style = cli.Notable
	case status >= 200:
		style = cli.Good
	}
	if flags != "" {
		text += " " + flags
	}
	return text, style
}

func peerOf(e *shown) string {
	host := e.text(event.PeerAddress)
	if port := e.Numbers[event.PeerPort]; port > 0 {
		return net.JoinHostPort(host, strconv.FormatInt(port, 10))
	}
	return host
}

// idOf is what to search for: the request's id, or the event's.
func idOf(e *shown) string { return or(e.text(event.RequestID), string(e.ID)) }

// reasons are the lines below a request or connection: the tries that failed, and why it failed at last.
func reasons(e *shown) []string {
	var out []string
	for i := range e.Items[:e.NumItems] {
		it := &e.Items[i]
		line := fmt.Sprintf("try %d  %s  %s", i+1, or(string(it.Texts[event.ItemHost]), "no host"), string(it.Texts[event.ItemFailure]))
		if s := it.Numbers[event.ItemStatus]; s > 0 {
			line += fmt.Sprintf("  %d", s)
		}
		out = append(out, line+"  "+took(it.Numbers[event.ItemTook]))
	}
	if e.Numbers[event.Fallback] != 0 {
		out = append(out, "a fallback answered")
	}
	if failed := cause(e); failed != "" {
		out = append(out, failed)
	}
	return out
}

// cause says why a request failed, "" where it did not.
func cause(e *shown) string {
	line := e.text(event.ErrorType)
	if line == "" {
		return ""
	}
	if e.text(event.ResponseFlags) == "" {
		line = or(e.text(event.Details), line)
	}
	if peer := peerOf(e); peer != "" {
		line += "  " + peer
	}
	if why := or(e.text(event.TransportFailure), e.text(event.Termination)); why != "" {
		line += ": " + why
	}
	return line
}

// next says where to read on about a request that failed.
func next(e *shown) string {
	flag, _, _ := strings.Cut(e.text(event.ResponseFlags), ",")
	if flag == "" || e.text(event.ErrorType) == "" {
		return ""
	}
	return "; next: meshtap explain " + cli.Clean(flag)
}

// took is a duration that fits into seven columns.
func took(nano int64) string {
	d := time.Duration(nano)
	switch {
	case d < 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d < 10*time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%.0fm", d.Minutes())
}

func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%dB", n)
	case n < 10_000_000:
		return fmt.Sprintf("%.1fKB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1fMB", float64(n)/1e6)
}
