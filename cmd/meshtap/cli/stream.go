// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"unicode/utf8"
)

// Stream is a table whose rows are printed as they come: its columns have fixed widths, which a row that is too long
// exceeds in a pipe; on a terminal it is cut, and wide terminals give the flexible columns more.
type Stream struct {
	s      *Screen
	cols   []Column
	widths []int
	begun  bool
}

// NewStream returns a table with columns of these widths. A width of 0 is for the last column, which takes what it
// needs.
func NewStream(s *Screen, cols []Column, widths []int) *Stream {
	t := &Stream{s: s, cols: cols, widths: append([]int(nil), widths...)}
	if s.Width == 0 {
		return t
	}
	total := len(gap) * (len(cols) - 1)
	var flex []int
	for i, c := range cols {
		total += t.widths[i]
		if c.Flex > 0 {
			flex = append(flex, i)
		}
	}
	for left, i := s.Width-total, 0; left > 0 && len(flex) > 0; left, i = left-1, i+1 {
		t.widths[flex[i%len(flex)]]++
	}
	return t
}

// Head prints the names of the columns, once.
func (t *Stream) Head() {
	if t.begun || !t.s.Headers {
		return
	}
	t.begun = true
	head := make([]Cell, len(t.cols))
	for i, c := range t.cols {
		head[i] = Cell{c.Name, Strong}
	}
	t.row(head)
}

// Row prints a row, the first one below the names of the columns.
func (t *Stream) Row(cells ...Cell) {
	t.Head()
	for i := range cells {
		cells[i].Text = Clean(cells[i].Text)
	}
	t.row(cells)
}

func (t *Stream) row(cells []Cell) {
	widths := t.widths
	if t.s.Width > 0 { // what is left of the line is for the last cell
		used := len(gap) * (len(cells) - 1)
		for _, w := range widths[:len(cells)-1] {
			used += w
		}
		widths = append([]int(nil), widths[:len(cells)]...)
		widths[len(cells)-1] = max(t.s.Width-used, 0)
	}
	for len(cells) > 1 && cells[len(cells)-1].Text == "" {
		cells = cells[:len(cells)-1]
	}
	t.s.row(t.cols, widths, gap, cells)
}

// Below prints a line that belongs to the row before it, indented by n columns. Of its parts only the text is cut.
func (t *Stream) Below(n int, head string, text Cell, tail string) {
	line := strings.Repeat(" ", n) + head
	text.Text = Clean(text.Text)
	if t.s.Width > 0 {
		text.Text = Cut(text.Text, max(t.s.Width-utf8.RuneCountInString(line)-utf8.RuneCountInString(tail), 0))
	}
	t.s.Line(T(line), text, Cell{tail, text.Style})
}
