// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// The formats of output. A verb offers some of them.
const (
	Table   = "table"
	Wide    = "wide"
	Compact = "compact"
	JSON    = "json"
	JSONL   = "jsonl"
)

// Output is how a verb is asked to print.
type Output struct {
	Format    string
	NoHeaders bool
	Color     string
	formats   []string
}

// Add adds the flags to a verb that offers these formats; the first is the default.
func (o *Output) Add(cmd *cobra.Command, formats ...string) {
	o.formats = formats
	s := cmd.Flags()
	s.StringVarP(&o.Format, "output", "o", formats[0], "`format`: "+strings.Join(formats, ", "))
	s.BoolVar(&o.NoHeaders, "no-headers", false, "no line with the names of the columns")
	s.StringVar(&o.Color, "color", "auto", "`when` to use colours: auto, always, never; auto obeys NO_COLOR")
	Common(cmd, "no-headers", "color")
	Complete(cmd, "output", formats...)
	Complete(cmd, "color", "auto", "always", "never")
}

// Screen is where a verb prints. It is used by one goroutine.
type Screen struct {
	w *bufio.Writer
	// Format is one of those that the verb offers.
	Format string
	// Headers asks for the names of columns.
	Headers bool
	// Width is how many columns a terminal has; 0 where there is none.
	Width int
	color bool
}

// Open checks the flags and returns the screen on the command's output.
func (o *Output) Open(cmd *cobra.Command) (*Screen, error) {
	if !slices.Contains(o.formats, o.Format) {
		return nil, Usage(DidYouMean(o.Format, o.formats), "there is no output format %q here", o.Format)
	}
	out := cmd.OutOrStdout()
	s := &Screen{w: bufio.NewWriterSize(out, 32<<10), Format: o.Format, Headers: !o.NoHeaders, Width: width(out)}
	switch o.Color {
	case "always":
		s.color = true
	case "auto":
		s.color = s.Width > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	case "never":
	default:
		return nil, Usage("auto, always and never are allowed", "--color %q", o.Color)
	}
	return s, nil
}

// width returns the columns of the terminal that w is, 0 where it is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col >= minWidth {
		return int(size.Col)
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n >= minWidth {
		return n
	}
	return defaultWidth
}

const (
	defaultWidth = 80
	minWidth     = 40
)

// Flush sends what was printed. Its error is that of any print before it.
func (s *Screen) Flush() error { return s.w.Flush() }

// Line prints one line of parts, each clean and in its style.
func (s *Screen) Line(parts ...Cell) {
	for _, p := range parts {
		s.cell(p.Style, Clean(p.Text))
	}
	s.w.WriteByte('\n')
}

// Text prints one line.
func (s *Screen) Text(line string) { s.Line(Cell{Text: line}) }

// Lines prints a text of several lines.
func (s *Screen) Lines(text string) {
	for line := range strings.Lines(text) {
		s.Text(strings.TrimSuffix(line, "\n"))
	}
}

// JSON prints v over several lines.
func (s *Screen) JSON(v any) error {
	b, err := indentJSON(v)
	if err != nil {
		return err
	}
	_, err = s.w.Write(b)
	return err
}

// JSONText prints a JSON text as it is laid out.
func (s *Screen) JSONText(text []byte) { s.w.Write(AppendJSON(nil, text)) }

// RawJSON prints a JSON text as one line.
func (s *Screen) RawJSON(text []byte) {
	s.w.Write(AppendJSON(nil, text))
	s.w.WriteByte('\n')
}

// Clear empties a terminal, to draw anew.
func (s *Screen) Clear() {
	if s.Width > 0 {
		s.w.WriteString("\x1b[H\x1b[2J")
	}
}

// cell prints a clean text in a style.
func (s *Screen) cell(style Style, text string) {
	if !s.color || style == Plain || text == "" {
		s.w.WriteString(text)
		return
	}
	s.w.WriteString("\x1b[" + sgr[style] + "m" + text + "\x1b[0m")
}

// Style is what a text means; it chooses the colour. No style carries what the text does not say as well.
type Style uint8

// The styles.
const (
	Plain Style = iota
	Good
	Notable
	Warning
	Bad
	Faint
	Strong
)

// sgr are the styles' parameters of SGR (ECMA-48 8.3.117).
var sgr = [...]string{Good: "32", Notable: "36", Warning: "33", Bad: "31", Faint: "2", Strong: "1"}
