// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
)

// story tells what an event says that is about the mesh and not about a request, in one line.
func story(e *shown) (string, cli.Style) {
	switch e.Kind {
	case event.Circuit:
		return circuitStory(e)
	case event.Ejection:
		return ejectionStory(e)
	case event.Health:
		to := e.text(event.To)
		style := cli.Warning
		if to == "healthy" {
			style = cli.Good
		}
		line := fmt.Sprintf("health %s %s → %s", e.text(event.Host), e.text(event.From), to)
		return line + because(join(e.text(event.Origin), e.text(event.Reason))), style
	case event.Config:
		return configStory(e)
	case event.Lifecycle:
		return lifecycleStory(e)
	case event.Lost:
		return lostStory(e), cli.Bad
	case event.Attempt:
		return attemptStory(e)
	case event.Certificate:
		return certificateStory(e)
	}
	return "an event of a type that this version does not know: " + string(e.Type), cli.Faint
}

func certificateStory(e *shown) (string, cli.Style) {
	where, style := e.text(event.Holder), cli.Good
	if s := e.text(event.Secret); s != "" {
		where = fmt.Sprintf("secret %q", s)
	}
	if e.text(event.Result) == "expiring" {
		style = cli.Warning
	}
	end := time.Unix(0, e.Numbers[event.NotAfter]).UTC().Format(time.RFC3339)
	return fmt.Sprintf("certificate %s: %s, %s, good until %s", e.text(event.Result), where, e.text(event.CertificateSubject), end), style
}

func circuitStory(e *shown) (string, cli.Style) {
	line := "circuit "
	if host := e.text(event.Host); host != "" {
		line += host + " "
	}
	to := e.text(event.To)
	line += fmt.Sprintf("%s → %s", word(e.text(event.From)), word(to)) + because(e.text(event.Reason))
	if n := e.Numbers[event.Requests]; n > 0 {
		line += fmt.Sprintf(" (%d requests, %d failed, %d slow)", n, e.Numbers[event.Failures], e.Numbers[event.Slow])
	}
	return line, circuitStyle(to)
}

// word is a circuit's state as people write it.
func word(state string) string {
	if state == "half_open" {
		return "half-open"
	}
	return state
}

func circuitStyle(state string) cli.Style {
	switch state {
	case "open":
		return cli.Bad
	case "half_open":
		return cli.Warning
	case "closed":
		return cli.Good
	}
	return cli.Plain
}

func ejectionStory(e *shown) (string, cli.Style) {
	host, reason := e.text(event.Host), e.text(event.Reason)
	switch {
	case e.Numbers[event.Ejected] == 0:
		return "ejection " + host + " is back" + because(reason), cli.Good
	case e.Numbers[event.Enforced] == 0:
		return "ejection " + host + " would be out, but that is not enforced" + because(reason), cli.Warning
	}
	line := "ejection " + host + " is out" + because(reason)
	if d := time.Duration(e.Numbers[event.EjectedFor]); d > 0 {
		line += fmt.Sprintf(", for %v at least", d)
	}
	if n := e.Numbers[event.Times]; n > 1 {
		line += fmt.Sprintf(", time %d", n)
	}
	return line, cli.Bad
}

func configStory(e *shown) (string, cli.Style) {
	line := "config " + e.text(event.Resource)
	if v := e.text(event.Version); v != "" {
		line += " " + v
	}
	line += " " + e.text(event.Result)
	accepted, rejected := e.Numbers[event.Accepted], e.Numbers[event.Rejected]
	switch {
	case rejected > 0:
		return line + fmt.Sprintf(": %d of %d refused", rejected, accepted+rejected), cli.Bad
	case accepted > 0:
		line += fmt.Sprintf(" (%d)", accepted)
	}
	if e.text(event.Result) != "accepted" {
		return line, cli.Bad
	}
	return line, cli.Good
}

// rejections are the lines below a configuration that was refused.
func rejections(e *shown) []string {
	if e.Kind != event.Config {
		return nil
	}
	var out []string
	for i := range e.Items[:e.NumItems] {
		t := &e.Items[i].Texts
		out = append(out, fmt.Sprintf("%s %q: %s", t[event.ItemKind], t[event.ItemName], t[event.ItemReason]))
	}
	return out
}

func lifecycleStory(e *shown) (string, cli.Style) {
	line := "lifecycle " + e.text(event.Phase) + because(e.text(event.Reason))
	if n := e.Numbers[event.Connections]; n > 0 {
		line += fmt.Sprintf(", %d connections", n)
	}
	if n := e.Numbers[event.Requests]; n > 0 {
		line += fmt.Sprintf(", %d requests", n)
	}
	return line, cli.Notable
}

func attemptStory(e *shown) (string, cli.Style) {
	line := fmt.Sprintf("attempt %d %s", e.Numbers[event.AttemptNumber], e.text(event.Host))
	if status := e.Numbers[event.Status]; status > 0 {
		line += fmt.Sprintf(" %d", status)
	}
	line += fmt.Sprintf(" %v", time.Duration(e.Numbers[event.Took])) + because(e.text(event.Failure))
	if e.text(event.Failure) != "" {
		return line, cli.Warning
	}
	return line, cli.Plain
}

func lostStory(e *shown) string {
	reason, origin := e.text(event.Reason), e.text(event.Origin)
	line := fmt.Sprintf("lost %s: %s", events(e.Uint(event.Count)), reason)
	if origin != "" {
		line += " at " + origin
	}
	return line
}

// events is a count of events.
func events(n uint64) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// gapStory tells of events that nobody told of.
func gapStory(g consume.Gap) string {
	return fmt.Sprintf("gap: %s of boot %s of %s did not come (numbers %d to %d), reason unknown",
		events(g.Count), short(g.Boot), proxyOf(g.Source), g.From, g.To)
}

func short(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}
