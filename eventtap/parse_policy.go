// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/eventtap/spool"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// PolicyTypeURL is the type of a policy at a route.
const PolicyTypeURL = "meshtap.tap.v1.Policy"

// PolicyRows returns the row of a route's policy, in the category registry.RoutePolicy. What its Parse makes is a *Policy.
func PolicyRows() []registry.Row[struct{}] {
	filters := filter.NewCompiler()
	return []registry.Row[struct{}]{{
		Info: registry.Info{
			Category: registry.RoutePolicy, Name: mesh.TapPolicyKey, TypeURLs: []string{PolicyTypeURL},
			Status: registry.Alpha, Posture: "data-plane-agnostic", Example: "tap-spool.yaml",
		},
		Parse: func(_ string, b []byte) (registry.Parsed, error) {
			var m tapv1.Policy
			if err := Unmarshal(b, &m, tapFields); err != nil {
				return registry.Parsed{}, err
			}
			p, err := parsePolicy("", &m, filters)
			if err != nil {
				return registry.Parsed{}, err
			}
			return registry.Parsed{Config: p}, nil
		},
	}}
}

const (
	minSlow   = time.Millisecond
	maxFields = 80
)

// parsePolicy reads a policy; nil is the default. path ends in a dot, or is "".
func parsePolicy(path string, m *tapv1.Policy, filters *filter.Compiler) (*Policy, error) {
	p := &Policy{Off: m.GetOff(), OneIn: m.GetOneIn()}
	if p.OneIn > MaxOneIn {
		return nil, registry.Errorf(path+"one_in", "%d, at most %d is allowed", p.OneIn, MaxOneIn)
	}
	slow, err := duration(path+"slow", m.GetSlow(), minSlow, 24*time.Hour)
	if err != nil {
		return nil, err
	}
	p.Slow = int64(slow)
	if p.Mask, err = parseMask(path, m.GetFields(), m.GetRedact()); err != nil {
		return nil, err
	}
	if text := m.GetFilter(); text != "" {
		if p.Filter, err = filters.Compile(text); err != nil {
			return nil, registry.Errorf(path+"filter", "%v", err)
		}
	}
	return p, nil
}

// duration reads a duration between two bounds; 0 is none.
func duration(path string, d *durationpb.Duration, least, most time.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if v := d.AsDuration(); d.CheckValid() == nil && v >= least && v <= most {
		return v, nil
	}
	return 0, registry.Errorf(path, "%v, from %v to %v are allowed", d.AsDuration(), least, most)
}

func parseMask(path string, fields, redact []string) (m Mask, err error) {
	if len(fields) > maxFields || len(redact) > maxFields {
		return m, registry.Errorf(path+"fields", "there are %d, at most %d are allowed", max(len(fields), len(redact)), maxFields)
	}
	m.Limited = len(fields) > 0
	for i, name := range fields {
		f, ok := event.FieldOf(name)
		switch {
		case name == "traceparent":
			m.Trace = true
		case !ok:
			return m, registry.Errorf(fmt.Sprintf("%sfields[%d]", path, i), "%q is no field of a request's or a connection's event", name)
		case f.IsList:
			m.Tries = true
		case f.IsText:
			m.Texts |= 1 << f.Text
		default:
			m.Numbers |= 1 << f.Number
		}
	}
	for i, name := range redact {
		f, ok := event.FieldOf(name)
		if !ok || !f.IsText {
			return m, registry.Errorf(fmt.Sprintf("%sredact[%d]", path, i), "%q is no text of a request's or a connection's event", name)
		}
		m.Redacted |= 1 << f.Text
	}
	return m, nil
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9a-z-]{1,64}$")

// parseSelection reads which events there are, and by what they are kept in order.
func parseSelection(c *Config, m *tapv1.Tap, filters *filter.Compiler) error {
	p, err := parsePolicy("policy.", m.Policy, filters)
	if err != nil {
		return err
	}
	c.Policy = *p
	if len(m.Selections) > MaxSelections {
		return registry.Errorf("selections", "there are %d, at most %d are allowed", len(m.Selections), MaxSelections)
	}
	for i, s := range m.Selections {
		path := fmt.Sprintf("selections[%d].", i)
		if s.Policy == nil {
			return registry.Errorf(path+"policy", "is required")
		}
		p, err := parsePolicy(path+"policy.", s.Policy, filters)
		if err != nil {
			return err
		}
		c.Selections = append(c.Selections, Selection{Listener: s.Listener, Route: s.Route, Cluster: s.Cluster, Policy: p})
	}
	k := m.PartitionKey
	by, ok := map[tapv1.PartitionKey_By]KeyBy{
		tapv1.PartitionKey_CLUSTER: KeyByCluster, tapv1.PartitionKey_HEADER: KeyByHeader, tapv1.PartitionKey_ROUTE: KeyByRoute,
		tapv1.PartitionKey_SOURCE: KeyBySource, tapv1.PartitionKey_TRACE: KeyByTrace,
	}[k.GetBy()]
	switch {
	case !ok:
		return registry.Errorf("partition_key.by", "%s, must be CLUSTER, HEADER, ROUTE, SOURCE or TRACE", k.GetBy())
	case by == KeyByHeader && !headerName.MatchString(k.GetHeader()):
		return registry.Errorf("partition_key.header", "%q, must be the name of a header in lower case, of at most 64 bytes", k.GetHeader())
	case by != KeyByHeader && k.GetHeader() != "":
		return registry.Errorf("partition_key.header", "is for HEADER alone")
	}
	c.Key = Key{by, k.GetHeader()}
	return nil
}

func parseSpool(c *Config, m *tapv1.Spool) error {
	if m == nil {
		return nil
	}
	if !filepath.IsAbs(m.Directory) {
		return registry.Errorf("spool.directory", "%q, must be an absolute path", m.Directory)
	}
	s := SpoolConfig{Dir: filepath.Clean(m.Directory), MaxBytes: DefaultSpoolBytes, KeyFile: m.KeyFile}
	if v := m.MaxBytes; v != nil {
		if v.Value < spool.MinBytes || v.Value > 1<<50 {
			return registry.Errorf("spool.max_bytes", "%d, from %d to %d are allowed", v.Value, spool.MinBytes, int64(1)<<50)
		}
		s.MaxBytes = int64(v.Value)
	}
	switch m.WhenFull {
	case tapv1.Spool_DROP_OLDEST:
	case tapv1.Spool_DROP_NEWEST:
		s.Refuse = true
	default:
		return registry.Errorf("spool.when_full", "%s, must be DROP_OLDEST or DROP_NEWEST", m.WhenFull)
	}
	var ok bool
	if s.Commit, ok = map[tapv1.Spool_Commit]spool.Commit{
		tapv1.Spool_COMMIT_UNSPECIFIED: spool.Interval, tapv1.Spool_INTERVAL: spool.Interval,
		tapv1.Spool_NONE: spool.None, tapv1.Spool_BATCH: spool.Batch,
	}[m.Commit]; !ok {
		return registry.Errorf("spool.commit", "%s, must be NONE, INTERVAL or BATCH", m.Commit)
	}
	var err error
	if s.Every, err = duration("spool.commit_interval", m.CommitInterval, time.Millisecond, 10*time.Second); err != nil {
		return err
	}
	if s.Every == 0 {
		s.Every = DefaultCommit
	}
	if m.KeyFile != "" && !filepath.IsAbs(m.KeyFile) {
		return registry.Errorf("spool.key_file", "%q, must be an absolute path", m.KeyFile)
	}
	c.Spool = s
	return nil
}
