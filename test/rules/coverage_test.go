// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/als"
	"github.com/meshtap/meshtap/eventtap/sink/file"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/eventtap/sink/nats"
	"github.com/meshtap/meshtap/eventtap/sink/rabbitmq"
	"github.com/meshtap/meshtap/eventtap/sink/stdout"
	"github.com/meshtap/meshtap/eventtap/sink/webhook"
	"github.com/meshtap/meshtap/eventtap/sink/zeromq"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/proxy/accesslog"
	"github.com/meshtap/meshtap/proxy/filter/cors"
	"github.com/meshtap/meshtap/proxy/filter/fault"
	"github.com/meshtap/meshtap/proxy/filter/grpchttp1bridge"
	"github.com/meshtap/meshtap/proxy/filter/grpcstats"
	"github.com/meshtap/meshtap/proxy/filter/grpcweb"
	"github.com/meshtap/meshtap/proxy/filter/ondemand"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

// fieldTables returns the table beside each decoder; the first is that of resources and of the bootstrap.
func fieldTables() []*protofields.Table {
	return append([]*protofields.Table{
		bootstrap.Fields(), lb.Fields(), inspect.Fields(), cors.Fields(), fault.Fields(), grpchttp1bridge.Fields(), grpcstats.Fields(),
		grpcweb.Fields(), ondemand.Fields(), eventtap.Fields(), als.Fields(), file.Fields(), kafka.Fields(), nats.Fields(),
		rabbitmq.Fields(), stdout.Fields(), webhook.Fields(), zeromq.Fields(),
	}, accesslog.Fields()...)
}

// core is what the first table is of.
const core = "resources and the bootstrap"

// decoded is a message as one or more tables have it.
type decoded struct {
	name string
	rows []protofields.Row
	// readers are the extensions whose tables these are, or core.
	readers []string
	// other says that the same message is read otherwise elsewhere.
	other bool
}

// TestCoverageDoc keeps the list of the fields of every message that is read, with what becomes of them. Each message of an
// extension is in a table, and so is each that an implemented field leads to. A rule for a field that the message does not
// have panics here.
func TestCoverageDoc(t *testing.T) {
	t.Parallel()
	all := app.NewExtensions(io.Discard).All()
	found := map[string]bool{}
	var messages []*decoded
	for i, table := range fieldTables() {
		for _, d := range table.Messages() {
			found[string(d.FullName())] = true
			if missing := table.Uncovered(dynamicpb.NewMessage(d)); len(missing) > 0 {
				t.Errorf("%s: no rules for %v, so that all of it would be refused", d.FullName(), missing)
			}
		}
		readers := []string{core}
		if i > 0 {
			readers = readersOf(table, all)
		}
		messages = addDecoded(messages, table, readers)
	}
	for _, e := range all {
		for _, u := range e.TypeURLs {
			if !found[u] && e.Status != registry.Inert { // none of its fields is read
				t.Errorf("%s: %s is in none of fieldTables; what reads it needs a table of its fields", e.Name, u)
			}
		}
	}
	slices.SortStableFunc(messages, func(a, b *decoded) int { return cmp.Compare(a.name, b.name) })
	var out bytes.Buffer
	writeCoverage(&out, messages)
	generated(t, "docs/coverage.md", out.Bytes())
}

// readersOf returns the extensions that read messages of a table.
func readersOf(table *protofields.Table, all []registry.Info) (readers []string) {
	in := map[string]bool{}
	for _, d := range table.Messages() {
		in[string(d.FullName())] = true
	}
	for _, e := range all {
		if slices.ContainsFunc(e.TypeURLs, func(u string) bool { return in[u] }) {
			readers = append(readers, e.Name)
		}
	}
	return readers
}

// addDecoded adds the messages of a table to those of others; what tables agree on is there once.
func addDecoded(all []*decoded, table *protofields.Table, readers []string) []*decoded {
	rows := map[string][]protofields.Row{}
	for _, r := range table.Rows() {
		rows[r.Message] = append(rows[r.Message], r)
	}
next:
	for _, d := range table.Messages() {
		m := &decoded{name: string(d.FullName()), rows: rows[string(d.FullName())], readers: slices.Clone(readers)}
		slices.SortFunc(m.rows, func(a, b protofields.Row) int { return cmp.Compare(a.Field, b.Field) })
		for _, o := range all {
			if o.name != m.name {
				continue
			}
			if slices.Equal(o.rows, m.rows) {
				o.readers = append(o.readers, readers...)
				continue next
			}
			o.other, m.other = true, true
		}
		all = append(all, m)
	}
	return all
}

// heading is a message with, where it is read in several ways, who reads it so.
func (m *decoded) heading() string {
	if !m.other {
		return m.name
	}
	return m.name + ", in " + strings.Join(m.readers, ", ")
}

// columns are the states of fields, in the order of the summary.
var columns = []struct {
	class  protofields.Class
	opaque bool
	state  string
}{
	{protofields.Honoured, false, "implemented"}, {protofields.Honoured, true, "by value"}, {protofields.NoEffect, false, "without effect"},
	{protofields.Observational, false, "observational"}, {protofields.Refused, false, "refused"},
}

// state returns the column of a field.
func state(r protofields.Row) int {
	for i, c := range columns {
		if c.class == r.Class && c.opaque == r.Opaque {
			return i
		}
	}
	panic(fmt.Sprintf("%+v", r))
}

func writeCoverage(out io.Writer, messages []*decoded) {
	fmt.Fprint(out, `# Every field

Generated from the tables beside the decoders, which each accepted message is held against, field by field. What works as a
whole is in [features](features.md), which types of extensions there are in [extensions](extensions.md).

- **implemented**: does what Envoy's documentation says. Single values may be refused by name.
- **by value**: code of its own looks at what is in it: some is implemented, the rest refused or reported as without effect.
- **without effect**: accepted, and reported wherever it is set, as by `+"`meshtap config validate`"+`: it changes nothing here.
- **observational**: affects only what can be seen of traffic. Refused, or without effect under `+"`--accept-observational`"+`.
- **refused**: a configuration that sets it is refused by name.

A message that stands only in fields that are refused, or by value, is not here.

## Messages

`)
	head, line := "| message |", "|---|"
	for _, c := range columns {
		head, line = head+" "+c.state+" |", line+"---|"
	}
	fmt.Fprintf(out, "%s\n%s\n", head, line)
	sum := make([]int, len(columns))
	for _, m := range messages {
		fmt.Fprintf(out, "| [%s](#%s) |", m.heading(), anchor(m.heading()))
		count := make([]int, len(columns))
		for _, r := range m.rows {
			count[state(r)]++
		}
		for i, n := range count {
			sum[i] += n
			fmt.Fprintf(out, " %s |", number(n))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "| **%d messages** |", len(messages))
	for _, n := range sum {
		fmt.Fprintf(out, " **%d** |", n)
	}
	fmt.Fprint(out, "\n\n## Fields\n")
	for _, m := range messages {
		m.write(out)
	}
}

// number leaves 0 out, so that the others are seen.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (m *decoded) write(out io.Writer) {
	fmt.Fprintf(out, "\n### %s\n\n", m.heading())
	if len(m.rows) == 0 {
		fmt.Fprintln(out, "It has no fields.")
		return
	}
	fmt.Fprint(out, "| field | state | why |\n|---|---|---|\n")
	for _, r := range m.rows {
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", r.Field, columns[state(r)].state, why(r))
	}
}

// why is the reason that the decoder gives, and the value that is passed over in silence.
func why(r protofields.Row) string {
	text := strings.ReplaceAll(r.Why, "|", "\\|")
	switch {
	case r.Silent == "":
		return text
	case r.Class == protofields.NoEffect:
		return fmt.Sprintf("%s; `%s` is not reported", text, r.Silent)
	}
	return fmt.Sprintf("%s; `%s` is accepted", text, r.Silent)
}

// anchor is how Markdown calls a heading: in small letters, without what is no letter, digit, - or _, and with - for spaces.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return -1
	}, strings.ToLower(heading))
}
