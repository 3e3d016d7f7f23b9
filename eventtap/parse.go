// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the tap's configuration.
const TypeURL = "meshtap.tap.v1.Tap"

// Builder makes a tap of what Parse returned.
type Builder func(Config, Deps) (*Tap, error)

// Rows returns the tap's row of the extension table, in the category registry.Bootstrap. sinks are the rows of all sinks
// that a configuration may name.
func Rows(sinks []SinkRow) []registry.Row[Builder] {
	p := parser{sinks: registry.NewParsers(), filters: filter.NewCompiler()}
	registry.AddAll(p.sinks, sinks)
	return []registry.Row[Builder]{{
		Info: registry.Info{
			Category: registry.Bootstrap, Name: "meshtap.tap", TypeURLs: []string{TypeURL},
			Status: registry.Alpha, Posture: "data-plane-agnostic", Example: "tap.yaml",
		},
		Parse: p.parse,
		Build: New,
	}}
}

var tapFields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.Tap{}, protofields.Honour("memory_bytes", "events", "sinks", "source", "client_address", "spool", "policy",
		"selections", "partition_key"))
	t.Add(&tapv1.EventPolicy{}, protofields.Honour("class", "mode"))
	t.Add(&tapv1.Source{}, protofields.Honour("cluster", "namespace", "workload", "proxy"))
	t.Add(&tapv1.Sink{}, protofields.Honour("name", "typed_config", "events"))
	t.Add(&tapv1.Spool{}, protofields.Honour("directory", "max_bytes", "when_full", "commit", "commit_interval", "key_file"))
	t.Add(&tapv1.Selection{}, protofields.Honour("listener", "route", "cluster", "policy"))
	t.Add(&tapv1.PartitionKey{}, protofields.Honour("by", "header"))
	t.Add(&tapv1.Policy{}, protofields.Honour("off", "one_in", "slow", "fields", "redact", "filter"))
	return t
}()

// Fields returns the table of the fields that the tap and its policies honour, for documents and for tests.
func Fields() *protofields.Table { return tapFields }

// Unmarshal reads a message of Meshtap's own, and refuses fields that this version does not know. table names those that
// it does. It is for the Parse functions of the tap and its sinks.
func Unmarshal(b []byte, m proto.Message, table *protofields.Table) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return registry.Errorf("", "not a %s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	var err error
	unknown := table.Walk(m, func(f protofields.Finding) {
		if err == nil {
			err = registry.Errorf(f.Path, "%s", f.Why)
		}
	})
	if err == nil && unknown > 0 {
		err = registry.Errorf("", "%d fields are not known to this version of Meshtap", unknown)
	}
	return err
}

// ParseSink reads the message of a sink, by Unmarshal, into a configuration, which the steps fill. The first error of a step
// is the error.
func ParseSink[C any, M proto.Message](b []byte, m M, table *protofields.Table, steps ...func(*C, M) error) (registry.Parsed, error) {
	if err := Unmarshal(b, m, table); err != nil {
		return registry.Parsed{}, err
	}
	var c C
	for _, step := range steps {
		if err := step(&c, m); err != nil {
			return registry.Parsed{}, err
		}
	}
	return registry.Parsed{Config: c}, nil
}

// BusRow returns the row of a sink that writes to a bus over the network, such as "nats". newSink makes it of what parse
// made.
func BusRow[C any, S Sink](bus, typeURL string, parse registry.Parse, newSink func(C, SinkDeps) S) SinkRow {
	return SinkRow{
		Info: registry.Info{
			Category: registry.EventSink, Name: "meshtap.event_sinks." + bus, TypeURLs: []string{typeURL},
			Status: registry.Alpha, Posture: "trusted-upstream", Example: "tap-" + bus + ".yaml",
		},
		Parse: parse,
		Build: func(c any, deps SinkDeps) (Sink, error) { return newSink(c.(C), deps), nil },
	}
}

type parser struct {
	sinks   *registry.Parsers
	filters *filter.Compiler
}

func (p parser) parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.Tap
	if err := Unmarshal(b, &m, tapFields); err != nil {
		return registry.Parsed{}, err
	}
	c := Config{Memory: DefaultMemory}
	if v := m.MemoryBytes; v != nil {
		if v.Value < MinMemory || v.Value > MaxMemory {
			return registry.Parsed{}, registry.Errorf("memory_bytes", "%d, from %d to %d are allowed", v.Value, MinMemory, MaxMemory)
		}
		c.Memory = int(v.Value)
	}
	switch m.ClientAddress {
	case tapv1.Tap_OMIT:
	case tapv1.Tap_TRUNCATE:
		c.ClientNetwork = true
	default:
		return registry.Parsed{}, registry.Errorf("client_address", "%d, must be OMIT or TRUNCATE", m.ClientAddress)
	}
	if s := m.Source; s != nil {
		c.Source = Source{Cluster: s.Cluster, Namespace: s.Namespace, Workload: s.Workload, Proxy: s.Proxy}
	}
	if err := parseEvents("events", m.Events, &c.Modes); err != nil {
		return registry.Parsed{}, err
	}
	if err := parseSelection(&c, &m, p.filters); err != nil {
		return registry.Parsed{}, err
	}
	if err := parseSpool(&c, m.Spool); err != nil {
		return registry.Parsed{}, err
	}
	parsed := registry.Parsed{}
	if err := p.parseSinks(&c, m.Sinks, &parsed); err != nil {
		return registry.Parsed{}, err
	}
	if err := c.validate(); err != nil {
		return registry.Parsed{}, registry.Errorf("memory_bytes", "%s", strings.TrimPrefix(err.Error(), "eventtap: "))
	}
	parsed.Config = c
	return parsed, nil
}

var classes = map[tapv1.EventPolicy_Class]event.Kind{
	tapv1.EventPolicy_REQUEST:    event.Request,
	tapv1.EventPolicy_CONNECTION: event.Connection,
	tapv1.EventPolicy_CIRCUIT:    event.Circuit,
	tapv1.EventPolicy_EJECTION:   event.Ejection,
	tapv1.EventPolicy_HEALTH:     event.Health,
	tapv1.EventPolicy_CONFIG:     event.Config,
	tapv1.EventPolicy_LIFECYCLE:  event.Lifecycle,
	tapv1.EventPolicy_ATTEMPT:    event.Attempt,

	tapv1.EventPolicy_CERTIFICATE: event.Certificate,
}

var modes = map[tapv1.EventPolicy_Mode]Mode{
	tapv1.EventPolicy_MODE_UNSPECIFIED: DropNewest,
	tapv1.EventPolicy_DROP_NEWEST:      DropNewest,
	tapv1.EventPolicy_OFF:              Off,
	tapv1.EventPolicy_DROP_OLDEST:      DropOldest,
	tapv1.EventPolicy_SAMPLE:           Sample,
	tapv1.EventPolicy_SPOOL:            Spool,
}

// parseEvents reads the modes of classes over those that are there.
func parseEvents(at string, policies []*tapv1.EventPolicy, into *[event.NumKinds]Mode) error {
	var seen [event.NumKinds]bool
	for i, p := range policies {
		path := fmt.Sprintf("%s[%d].", at, i)
		kind, ok := classes[p.Class]
		if !ok {
			return registry.Errorf(path+"class", "%s, must be REQUEST, CONNECTION, CIRCUIT, EJECTION, HEALTH, CONFIG, LIFECYCLE or ATTEMPT", p.Class)
		}
		if seen[kind] {
			return registry.Errorf(path+"class", "%s is there twice", p.Class)
		}
		seen[kind] = true
		mode, ok := modes[p.Mode]
		if !ok {
			return registry.Errorf(path+"mode", "%s, must be DROP_NEWEST, DROP_OLDEST, SAMPLE, SPOOL or OFF", p.Mode)
		}
		into[kind] = mode
	}
	return nil
}

var sinkName = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

func (p parser) parseSinks(c *Config, sinks []*tapv1.Sink, parsed *registry.Parsed) error {
	if len(sinks) > MaxSinks {
		return registry.Errorf("sinks", "there are %d, at most %d are allowed", len(sinks), MaxSinks)
	}
	seen := map[string]bool{}
	for i, s := range sinks {
		path := fmt.Sprintf("sinks[%d].", i)
		if !sinkName.MatchString(s.Name) {
			return registry.Errorf(path+"name", "%q, must be 1 to 32 of a-z, 0-9, _ and -", s.Name)
		}
		if seen[s.Name] || s.Name == string(ringName) || s.Name == HubName {
			return registry.Errorf(path+"name", "%q is taken", s.Name)
		}
		seen[s.Name] = true
		typ := strings.TrimPrefix(s.GetTypedConfig().GetTypeUrl(), "type.googleapis.com/")
		got, _, ok, err := p.sinks.Parse(registry.EventSink, typ, s.GetTypedConfig().GetValue())
		if !ok {
			return registry.Errorf(path+"typed_config", "%q is not a sink; known are %s", typ,
				strings.Join(p.sinks.Known(registry.EventSink), ", "))
		}
		if err != nil {
			return within(path+"typed_config", err)
		}
		for _, field := range got.NoEffect {
			parsed.NoEffect = append(parsed.NoEffect, path+"typed_config."+field)
		}
		parsed.Clusters = append(parsed.Clusters, got.Clusters...)
		sink := SinkConfig{Name: s.Name, TypeURL: typ, Config: got.Config}
		if len(s.Events) > 0 {
			modes := c.Modes
			if err := parseEvents(path+"events", s.Events, &modes); err != nil {
				return err
			}
			sink.Modes = &modes
		}
		if m := c.modes(&sink); slices.Contains(m[:], Spool) && c.Spool.Dir == "" {
			return registry.Errorf("spool", "is required: sinks[%d] has the mode SPOOL", i)
		}
		c.Sinks = append(c.Sinks, sink)
	}
	return nil
}

// within puts a path before that of an error.
func within(path string, err error) error {
	if fe, ok := err.(*registry.FieldError); ok && fe.Path != "" {
		return registry.Errorf(path+"."+fe.Path, "%s", fe.Msg)
	}
	return registry.Errorf(path, "%v", err)
}
