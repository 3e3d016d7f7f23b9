// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap/event"
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
	p := parser{sinks: registry.NewParsers()}
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
	t.Add(&tapv1.Tap{}, protofields.Honour("memory_bytes", "events", "sinks", "source", "client_address"))
	t.Add(&tapv1.EventPolicy{}, protofields.Honour("class", "mode"))
	t.Add(&tapv1.Source{}, protofields.Honour("cluster", "namespace", "workload", "proxy"))
	t.Add(&tapv1.Sink{}, protofields.Honour("name", "typed_config"))
	return t
}()

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

type parser struct{ sinks *registry.Parsers }

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
	if err := parseEvents(&c, m.Events); err != nil {
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
}

func parseEvents(c *Config, policies []*tapv1.EventPolicy) error {
	var seen [event.NumKinds]bool
	for i, p := range policies {
		path := fmt.Sprintf("events[%d].", i)
		kind, ok := classes[p.Class]
		if !ok {
			return registry.Errorf(path+"class", "%s, must be REQUEST, CONNECTION, CIRCUIT, EJECTION, HEALTH, CONFIG or LIFECYCLE", p.Class)
		}
		if seen[kind] {
			return registry.Errorf(path+"class", "%s is there twice", p.Class)
		}
		seen[kind] = true
		switch p.Mode {
		case tapv1.EventPolicy_MODE_UNSPECIFIED, tapv1.EventPolicy_DROP_NEWEST:
		case tapv1.EventPolicy_OFF:
			c.Off[kind] = true
		default:
			return registry.Errorf(path+"mode", "%s, must be DROP_NEWEST or OFF", p.Mode)
		}
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
		c.Sinks = append(c.Sinks, SinkConfig{Name: s.Name, TypeURL: typ, Config: got.Config})
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
