// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// statusFlags are the flags of "meshtap status".
type statusFlags struct {
	cli.Targets
	cli.Output
}

func newStatus() *cobra.Command {
	f := &statusFlags{}
	cmd := &cobra.Command{
		Use:   "status [PROXY...]",
		Short: "Show whether proxies have what their control plane sent",
		Long:  "\nExit code 5 says that something is refused, waits, or is not connected.",
		Example: `  meshtap status
  meshtap status web-1 -o json`,
	}
	f.Targets.Add(cmd)
	f.Output.Add(cmd, cli.Table, cli.Wide, cli.JSON)
	cmd.RunE = verb(f.run)
	return cmd
}

// xdsJSON is the answer of /xds.
type xdsJSON struct {
	ControlPlane string        `json:"control_plane,omitempty"` // what the control plane calls itself, or its address
	Connected    bool          `json:"connected"`               // whether the stream to it is up
	Since        time.Time     `json:"since,omitzero"`          // since when it is up, or down
	Types        []xdsTypeJSON `json:"types"`                   // each type of resource that the proxy knows
}

// xdsTypeJSON is how one type of resource stands.
type xdsTypeJSON struct {
	Type      string          `json:"type"`               // listener, route_configuration, cluster, endpoints, secret and others
	State     string          `json:"state"`              // synced, rejected, warming or never
	Version   string          `json:"version"`            // the version that is in force
	Updated   time.Time       `json:"updated,omitzero"`   // when it came into force
	Resources int             `json:"resources"`          // how many resources are in force
	Rejected  []rejectionJSON `json:"rejected,omitempty"` // what was refused of the last response
	Warming   []string        `json:"warming,omitempty"`  // what was accepted and waits, and for what
}

// rejectionJSON is a resource that was refused.
type rejectionJSON struct {
	Name   string `json:"name,omitempty"` // the resource
	Reason string `json:"reason"`         // what is wrong with it, and what is allowed
}

// coverageJSON is the answer of /config_coverage: what was accepted and changes nothing.
type coverageJSON struct {
	Bootstrap []struct {
		File string `json:"file"`           // the file of the bootstrap, or the flag that held it
		Line int    `json:"line,omitempty"` // counted from 1
		Path string `json:"path"`           // the field
		What string `json:"what"`           // what is to be said of it
	} `json:"bootstrap"` // fields of the bootstrap
	Resources []struct {
		Type    string `json:"type"`              // as in types
		Name    string `json:"name"`              // the resource
		Source  string `json:"source,omitempty"`  // where it came from
		Version string `json:"version,omitempty"` // its version
		Fields  []struct {
			Path string `json:"path"` // the field
			Why  string `json:"why"`  // why it changes nothing
		} `json:"fields"` // its fields without effect
	} `json:"resources"` // resources in force
}

// lines say for a person what the fields are.
func (c *coverageJSON) lines() (out []string) {
	for _, b := range c.Bootstrap {
		out = append(out, "bootstrap: "+b.What)
	}
	for _, r := range c.Resources {
		for _, f := range r.Fields {
			out = append(out, columnOf(r.Type)+" "+r.Name+": "+strings.TrimPrefix(f.Path+": "+f.Why, ": "))
		}
	}
	return out
}

// proxyStatus is one proxy.
type proxyStatus struct {
	Name    string `json:"name"`    // what the context calls it, or its node.id
	State   string `json:"state"`   // LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING, as in /server_info
	Version string `json:"version"` // its release
	xdsJSON
	// Notes say what is not as it should be.
	Notes []string `json:"notes"`
	// WithoutEffect is what was accepted and changes nothing.
	WithoutEffect coverageJSON `json:"without_effect"`
}

func (f *statusFlags) run(ctx context.Context, cmd *cobra.Command, names []string) error {
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	proxies, err := f.Proxies()
	if err != nil {
		return err
	}
	if proxies, err = cli.Named(proxies, names); err != nil {
		return err
	}
	now := time.Now()
	answers := cli.Ask(ctx, proxies, func(ctx context.Context, a *cli.Admin) (*proxyStatus, error) { return askStatus(ctx, a, now) })
	failed := cli.Failed(cmd.ErrOrStderr(), answers)
	var list []*proxyStatus
	problems := false
	for _, a := range answers {
		if a.Err == nil {
			list = append(list, a.Value)
			problems = problems || len(a.Value.Notes) > 0
		}
	}
	if len(list) == 0 {
		return failed
	}
	if s.Format == cli.JSON {
		err = s.JSON(document{"proxies": list})
	} else {
		printStatus(s, list, now)
	}
	if err = cmp.Or(err, s.Flush(), failed); err == nil && problems {
		err = cli.Quiet(cli.ExitProblems)
	}
	return err
}

func askStatus(ctx context.Context, a *cli.Admin, now time.Time) (*proxyStatus, error) {
	info, err := nameProxy(ctx, a)
	if err != nil {
		return nil, err
	}
	p := &proxyStatus{Name: a.Label(), State: info.State, Version: versionNumber(info.Version)}
	if err := a.JSON(ctx, "/xds", &p.xdsJSON); err != nil {
		return nil, err
	}
	if err := a.JSON(ctx, "/config_coverage", &p.WithoutEffect); err != nil {
		return nil, err
	}
	p.Notes = p.notes(now)
	return p, nil
}

// versionNumber is the second of the five parts of Envoy's version line.
func versionNumber(line string) string {
	if parts := strings.Split(line, "/"); len(parts) == 5 {
		return parts[1]
	}
	return line
}

// dynamic reports whether there is a control plane at all.
func (p *proxyStatus) dynamic() bool { return p.ControlPlane != "" }

// notes say what is not as it should be, the gravest first.
func (p *proxyStatus) notes(now time.Time) []string {
	out := []string{}
	for _, t := range p.Types {
		for _, r := range t.Rejected {
			reason := r.Reason
			if r.Name != "" {
				reason = r.Name + ": " + reason
			}
			out = append(out, columnOf(t.Type)+" refused: "+reason)
		}
		if t.State == "rejected" && len(t.Rejected) == 0 {
			out = append(out, columnOf(t.Type)+" refused")
		}
	}
	if p.dynamic() && !p.Connected {
		note := "not connected to the control plane"
		if !p.Since.IsZero() {
			note += " for " + age(now.Sub(p.Since))
		}
		out = append(out, note)
	}
	for _, t := range p.Types {
		for _, w := range t.Warming {
			out = append(out, columnOf(t.Type)+" waits: "+w)
		}
	}
	if p.State != "LIVE" {
		out = append(out, strings.ToLower(strings.ReplaceAll(p.State, "_", " ")))
	}
	return out
}

// xdsColumns are the types that have a column, in the order in which they depend on each other. Others are shown in
// JSON and in notes.
var xdsColumns = []struct{ column, typ string }{
	{"LDS", "listener"}, {"RDS", "route_configuration"}, {"CDS", "cluster"}, {"EDS", "endpoints"}, {"SDS", "secret"},
}

// columnOf is the short name of a type.
func columnOf(typ string) string {
	for _, c := range xdsColumns {
		if c.typ == typ {
			return c.column
		}
	}
	return typ
}

func printStatus(s *cli.Screen, list []*proxyStatus, now time.Time) {
	cols := []cli.Column{{Name: "PROXY", Flex: 8}}
	for _, c := range xdsColumns {
		cols = append(cols, cli.Column{Name: c.column, Flex: 6})
	}
	cols = append(cols, cli.Column{Name: "CP", Flex: 8}, cli.Column{Name: "AGE", Right: true})
	if s.Format == cli.Wide {
		cols = append(cols, cli.Column{Name: "STATE"}, cli.Column{Name: "VERSION"}, cli.Column{Name: "RESOURCES", Right: true})
	}
	g := cli.NewGrid(append(cols, cli.Column{Name: "NOTE", Flex: 8})...)
	for _, p := range list {
		g.Row(p.cells(s.Format == cli.Wide, now)...)
	}
	g.Print(s)
	for _, p := range list { // what the table had to cut, or has no place for
		for i, n := range p.Notes {
			if i > 0 || s.Width > 0 {
				s.Line(cli.Cell{Text: p.Name, Style: cli.Strong}, cli.T("  "+n))
			}
		}
	}
	for _, p := range list {
		printWithoutEffect(s, p)
	}
}

// maxWithoutEffect bounds the lines of one proxy about fields without effect, except with -o wide.
const maxWithoutEffect = 5

func printWithoutEffect(s *cli.Screen, p *proxyStatus) {
	line := func(text string) { s.Line(cli.Cell{Text: p.Name, Style: cli.Strong}, cli.T("  "+text)) }
	lines := p.WithoutEffect.lines()
	for i, l := range lines {
		if i == maxWithoutEffect && s.Format != cli.Wide {
			line(fmt.Sprintf("and %d more without effect; -o wide shows them all", len(lines)-i))
			return
		}
		line(l)
	}
}

func (p *proxyStatus) cells(wide bool, now time.Time) []cli.Cell {
	cells := []cli.Cell{cli.T(p.Name)}
	var updated time.Time
	resources := 0
	for _, c := range xdsColumns {
		cell := cli.T("")
		for _, t := range p.Types {
			if t.Type == c.typ {
				cell = t.cell()
			}
		}
		cells = append(cells, cell)
	}
	for _, t := range p.Types {
		resources += t.Resources
		if t.Updated.After(updated) {
			updated = t.Updated
		}
	}
	cp := p.ControlPlane
	if !p.dynamic() {
		cp = "static"
	}
	when := ""
	if !updated.IsZero() {
		when = age(now.Sub(updated))
	}
	cells = append(cells, cli.T(cp), cli.T(when))
	if wide {
		cells = append(cells, cli.T(p.State), cli.T(p.Version), cli.T(fmt.Sprint(resources)))
	}
	note := cli.T("")
	if len(p.Notes) > 0 {
		note = cli.Cell{Text: p.Notes[0], Style: cli.Bad}
	}
	return append(cells, note)
}

// cell is the version in force, and how the type stands.
func (t *xdsTypeJSON) cell() cli.Cell {
	v := t.Version
	if v != "" {
		v += " "
	}
	switch t.State {
	case "synced":
		return cli.Cell{Text: v + "✓", Style: cli.Good}
	case "rejected":
		return cli.Cell{Text: v + "NACK", Style: cli.Bad}
	case "warming":
		return cli.Cell{Text: v + "warming", Style: cli.Warning}
	case "never":
		return cli.T("")
	}
	return cli.T(v + t.State)
}

// age is a time span in one unit.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
