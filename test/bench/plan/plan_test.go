// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	t.Parallel()
	rows := Rows()
	for _, tt := range []struct {
		names string
		want  []string
		fails bool
	}{
		{"", Names(rows), false},
		{" ", Names(rows), false},
		{"idle, h1-1k", []string{"h1-1k", "idle"}, false},
		{"h1-16k idle", []string{"h1-16k", "idle"}, false},
		{"h1-1", nil, true},
		{"idle,nothing", nil, true},
	} {
		got, err := Pick(rows, tt.names)
		if !reflect.DeepEqual(Names(got), tt.want) || (err != nil) != tt.fails {
			t.Errorf("%q: %q, %v", tt.names, Names(got), err)
		}
	}
}

// Each row is a job that the generator takes, and each goal has a floor that is not stricter than it.
func TestRows(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range Rows() {
		j := r.Job
		j.Target, j.Measure = netip.MustParseAddrPort("127.0.0.1:1"), time.Second
		if err := j.Validate(); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		if seen[r.Name] || r.Title == "" {
			t.Errorf("%s: twice, or without a title", r.Name)
		}
		seen[r.Name] = true
		for _, g := range r.Goals {
			if g.Floor <= 0 || g.Goal > g.Floor {
				t.Errorf("%s: goal %v, floor %v", r.Name, g.Goal, g.Floor)
			}
		}
	}
}
