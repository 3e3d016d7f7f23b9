// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"context"
	"html"
	"io"
	"net/http"
	"strings"
)

// param describes a query parameter in the help, and in the forms of the pages.
type param struct {
	name, help string
	// one are the values that it may have; nil is any, or with flag none: it is there or not.
	one  []string
	flag bool
}

func field(name, help string) param { return param{name: name, help: help} }
func flag(name, help string) param  { return param{name: name, help: help, flag: true} }

func choice(name, help string, one ...string) param { return param{name: name, help: help, one: one} }

// text is the parameter's help, in Envoy's form.
func (p *param) text() string {
	if p.one == nil {
		return p.help
	}
	return p.help + "; One of (" + strings.Join(p.one, ", ") + ")"
}

// The pages have no scripts and no styles, and their forms lead nowhere else, so that a strict policy fits.
const (
	pageHead = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Meshtap admin</title></head><body>\n"
	pageFoot = "</body></html>\n"
	policy   = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

func page() *answer {
	return &answer{status: http.StatusOK, contentType: typeHTML, header: map[string]string{"Content-Security-Policy": policy}}
}

// home is a list of what there is, with a form for what can be read. What changes something has none: no request of a web
// page is taken for that, not even of this one.
func (s *Server) home(*request) (*answer, error) {
	var b strings.Builder
	b.WriteString(pageHead + "<h1>Meshtap admin</h1>\n<table>\n")
	for _, e := range s.sorted() {
		e.form(&b, query{})
	}
	b.WriteString("</table>\n" + pageFoot)
	a := page()
	a.body = []byte(b.String())
	return a, nil
}

// form writes the rows of a table that ask for the endpoint with its parameters, which have the values of q at first.
func (e *endpoint) form(b *strings.Builder, q query) {
	path, help := html.EscapeString(e.path), html.EscapeString(e.help)
	if e.changes {
		b.WriteString("<tr><td>" + path + " (POST)</td><td>" + help + "</td></tr>\n")
		return
	}
	b.WriteString(`<tr><td><form action="` + path + `" id="` + path + `"><button>` + path + "</button></form></td><td>" + help + "</td></tr>\n")
	for i := range e.params {
		p := &e.params[i]
		b.WriteString("<tr><td></td><td><label>")
		p.input(b, `name="`+html.EscapeString(p.name)+`" form="`+path+`"`, q)
		b.WriteString(" " + html.EscapeString(p.name+": "+p.help) + "</label></td></tr>\n")
	}
}

func (p *param) input(b *strings.Builder, attributes string, q query) {
	switch {
	case p.flag:
		b.WriteString(`<input type="checkbox" ` + attributes)
		if q.has(p.name) {
			b.WriteString(" checked")
		}
		b.WriteString(">")
	case p.one != nil:
		b.WriteString("<select " + attributes + ">")
		for _, v := range p.one {
			chosen := ""
			if v == q.get(p.name) {
				chosen = " selected"
			}
			b.WriteString("<option" + chosen + ">" + html.EscapeString(v) + "</option>")
		}
		b.WriteString("</select>")
	default:
		b.WriteString("<input " + attributes + ` value="` + html.EscapeString(clean(q.get(p.name))) + `">`)
	}
}

// statsPage is /stats?format=html: the form with what was asked for, and the text.
func (s *Server) statsPage(q query, write func(*bufio.Writer) error) *answer {
	var b strings.Builder
	b.WriteString(pageHead + "<table>\n")
	s.routes["/stats"].form(&b, q)
	b.WriteString("</table>\n<pre>\n")
	a := page()
	a.write = func(_ context.Context, w io.Writer) error {
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
		text := bufio.NewWriterSize(escaper{w}, 32<<10)
		if err := write(text); err != nil {
			return err
		}
		if err := text.Flush(); err != nil {
			return err
		}
		_, err := io.WriteString(w, "</pre>\n"+pageFoot)
		return err
	}
	return a
}

// escaper writes text into HTML.
type escaper struct{ w io.Writer }

// Write implements io.Writer.
func (e escaper) Write(p []byte) (int, error) {
	_, err := io.WriteString(e.w, html.EscapeString(string(p)))
	return len(p), err
}
