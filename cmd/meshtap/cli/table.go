// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Cell is a text and what it means.
type Cell struct {
	Text  string
	Style Style
}

// T returns a cell without a style.
func T(text string) Cell { return Cell{Text: text} }

// Column is one column of a table. Right aligns numbers; Flex is the least width to which a terminal that is too narrow
// may cut it, 0 where it must not be cut.
type Column struct {
	Name  string
	Right bool
	Flex  int
}

// Grid is a table that is held until all rows are there, so that columns are as wide as what is in them. On a terminal,
// flexible columns are cut so that lines do not wrap; in a pipe nothing is cut.
type Grid struct {
	cols []Column
	rows [][]Cell
}

// NewGrid returns an empty table.
func NewGrid(cols ...Column) *Grid { return &Grid{cols: cols} }

// Row adds a row. Missing cells, and empty ones, show as "-".
func (g *Grid) Row(cells ...Cell) {
	row := make([]Cell, len(g.cols))
	for i := range row {
		row[i] = T("-")
		if i < len(cells) && cells[i].Text != "" {
			row[i] = Cell{Clean(cells[i].Text), cells[i].Style}
		}
	}
	g.rows = append(g.rows, row)
}

// gap is between two columns, narrowGap where a terminal has no room for it.
const (
	gap       = "  "
	narrowGap = " "
)

// Print prints the table.
func (g *Grid) Print(s *Screen) {
	widths := make([]int, len(g.cols))
	for i, c := range g.cols {
		if s.Headers {
			widths[i] = utf8.RuneCountInString(c.Name)
		}
		for _, row := range g.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].Text))
		}
	}
	between, full := gap, slices.Clone(widths)
	if !g.squeeze(widths, s.Width, between) {
		between, widths = narrowGap, full
		g.squeeze(widths, s.Width, between)
	}
	if s.Headers {
		head := make([]Cell, len(g.cols))
		for i, c := range g.cols {
			head[i] = Cell{c.Name, Strong}
		}
		s.row(g.cols, widths, between, head)
	}
	for _, row := range g.rows {
		s.row(g.cols, widths, between, row)
	}
}

// squeeze takes from the widest flexible column until the line fits, and reports whether it does.
func (g *Grid) squeeze(widths []int, limit int, between string) bool {
	if limit == 0 {
		return true
	}
	total := len(between) * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > limit; total-- {
		widest := -1
		for i, c := range g.cols {
			if c.Flex > 0 && widths[i] > c.Flex && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		widths[widest]--
	}
	return true
}

// row prints the cells of one line, cut and padded. The last one is not padded.
func (s *Screen) row(cols []Column, widths []int, between string, cells []Cell) {
	for i, c := range cells {
		text := c.Text
		if s.Width > 0 {
			text = Cut(text, widths[i])
		}
		pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0))
		if i > 0 {
			s.w.WriteString(between)
		}
		switch {
		case cols[i].Right:
			s.w.WriteString(pad)
			s.cell(c.Style, text)
		case i == len(cells)-1:
			s.cell(c.Style, text)
		default:
			s.cell(c.Style, text)
			s.w.WriteString(pad)
		}
	}
	s.w.WriteByte('\n')
}

// Cut returns s in at most n characters, with a sign where something is missing.
func Cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 0 {
		return ""
	}
	keep := 0
	for i := range s {
		if keep == n-1 {
			return s[:i] + "…"
		}
		keep++
	}
	return s
}
