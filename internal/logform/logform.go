// SPDX-License-Identifier: Apache-2.0

// Package logform writes lines of the process' own log in a form that an operator gives, in the words of Envoy's
// application_log_config and --log-format: a text with flags such as %l, which are those of the spdlog library.
//
// A message and what stands with it never break a line: control characters are written as escapes, whatever the flag.
package logform

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/internal/format"
)

// Entry is one entry of the log.
type Entry struct {
	Time time.Time
	// Level is the level's name, Logger that of the component.
	Level, Logger string
	// Message is the text with what stands with it.
	Message string
	// File is the source file, "" where it is not known.
	File string
	Line int
	Func string
}

// Form is a form of lines. It is immutable.
type Form struct{ parts []part }

// part is a text, or a flag where it is not 0.
type part struct {
	text string
	flag byte
}

// flags are those that are known.
const flags = "YymdHMSTRDFefEzZaAbBpIrctPlLnvj_sg#!@%^$"

// Parse reads a form. A flag that is not known is written as it is, as in Envoy.
func Parse(text string) *Form {
	f := &Form{}
	for text != "" {
		at := strings.IndexByte(text, '%')
		if at < 0 || at == len(text)-1 {
			f.parts = append(f.parts, part{text: text})
			break
		}
		if strings.IndexByte(flags, text[at+1]) < 0 {
			f.parts = append(f.parts, part{text: text[:at+2]})
		} else {
			f.parts = append(f.parts, part{text: text[:at]}, part{flag: text[at+1]})
		}
		text = text[at+2:]
	}
	return f
}

// ParseJSON reads a form that is JSON: its message has to be that of %j, so that the line is JSON, too.
func ParseJSON(text string) (*Form, error) {
	f := Parse(text)
	for _, p := range f.parts {
		if p.flag == 'v' || p.flag == '_' {
			return nil, fmt.Errorf("has the flag %%%c, which is not JSON; use %%j", p.flag)
		}
	}
	return f, nil
}

// Append writes an entry and a newline.
func (f *Form) Append(dst []byte, e *Entry) []byte {
	for _, p := range f.parts {
		if p.flag == 0 {
			dst = append(dst, p.text...)
			continue
		}
		dst = e.append(dst, p.flag)
	}
	return append(dst, '\n')
}

// layouts are the flags of time that Go has a layout for.
var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'T': "15:04:05", 'R': "15:04",
	'D': "01/02/06", 'z': "-07:00", 'Z': "-07:00", 'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'p': "PM", 'I': "03",
	'r': "03:04:05 PM", 'c': "Mon Jan _2 15:04:05 2006",
}

func (e *Entry) append(dst []byte, flag byte) []byte {
	if layout, ok := layouts[flag]; ok {
		return e.Time.AppendFormat(dst, layout)
	}
	switch flag {
	case 'e':
		return fmt.Appendf(dst, "%03d", e.Time.Nanosecond()/1e6)
	case 'f':
		return fmt.Appendf(dst, "%06d", e.Time.Nanosecond()/1e3)
	case 'F':
		return fmt.Appendf(dst, "%09d", e.Time.Nanosecond())
	case 'E':
		return strconv.AppendInt(dst, e.Time.Unix(), 10)
	case 'l':
		return append(dst, e.Level...)
	case 'L':
		return append(dst, strings.ToUpper(e.Level[:min(1, len(e.Level))])...)
	case 'n':
		return append(dst, e.Logger...)
	case 'v', '_', 'j':
		if flag == 'j' {
			return format.AppendJSONText(dst, []byte(e.Message))
		}
		return format.AppendText(dst, []byte(e.Message))
	case 's':
		return append(dst, e.File[strings.LastIndexByte(e.File, '/')+1:]...)
	case 'g':
		return append(dst, e.File...)
	case '#':
		return strconv.AppendInt(dst, int64(e.Line), 10)
	case '@':
		return fmt.Appendf(dst, "%s:%d", e.File, e.Line)
	case '!':
		return append(dst, e.Func...)
	case '%':
		return append(dst, '%')
	case 'P':
		return strconv.AppendInt(dst, int64(os.Getpid()), 10)
	case 't':
		return append(dst, '0') // Go has no threads to name
	}
	return dst // there are no colours
}
