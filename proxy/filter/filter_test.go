// SPDX-License-Identifier: Apache-2.0

package filter_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// named is a filter that notes that it was asked, and may stop.
type named struct {
	name  string
	stops bool
	log   *[]string
}

func (n named) OnRequest(*exchange.Exchange) (filter.Verdict, []byte) {
	*n.log = append(*n.log, n.name)
	if n.stops {
		return filter.Stop, []byte("by " + n.name)
	}
	return filter.Continue, nil
}
func (n named) OnResponse(*exchange.Exchange) { *n.log = append(*n.log, n.name+"'s answer") }
func (n named) Close()                        { *n.log = append(*n.log, n.name+" closed") }

func TestChain(t *testing.T) {
	t.Parallel()
	off := map[string]mesh.Extension{"b": {Disabled: true}}
	on := map[string]mesh.Extension{"b": {}}
	for _, c := range []struct {
		name     string
		stops    bool
		disabled bool
		route    map[string]mesh.Extension
		host     map[string]mesh.Extension
		cluster  map[string]mesh.Extension
		want     string
	}{
		{name: "all", want: "a b c c's answer b's answer a's answer"},
		{name: "one stops", stops: true, want: "a b b's answer a's answer"},
		{name: "one is off", disabled: true, want: "a c c's answer a's answer"},
		{name: "one is off by the route", route: off, want: "a c c's answer a's answer"},
		{name: "one is on by the route", disabled: true, route: on, want: "a b c c's answer b's answer a's answer"},
		{name: "the route comes before the host", route: on, host: off, want: "a b c c's answer b's answer a's answer"},
		{name: "the weighted cluster comes before the route", route: on, cluster: off, want: "a c c's answer a's answer"},
		{name: "the host", host: off, want: "a c c's answer a's answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log []string
			chain := filter.Chain{
				{Name: "a", Filter: named{name: "a", log: &log}},
				{Name: "b", Filter: named{name: "b", stops: c.stops, log: &log}, Disabled: c.disabled},
				{Name: "c", Filter: named{name: "c", log: &log}},
			}
			x := &exchange.Exchange{Table: &mesh.RouteTable{}}
			x.Match.Host = &mesh.VirtualHost{PerFilter: c.host}
			x.Match.Route = &mesh.Route{PerFilter: c.route, Forward: &mesh.RouteAction{
				TotalWeight: 1, Clusters: []mesh.WeightedCluster{{Weight: 1, PerFilter: c.cluster}},
			}}
			stopped, body := chain.Request(x)
			chain.Response(x, stopped)
			if got := strings.Join(log, " "); got != c.want || c.stops != (string(body) == "by b") {
				t.Errorf("got %s with body %q, want %s", got, body, c.want)
			}
			log = nil
			chain.Close()
			if got := strings.Join(log, " "); got != "a closed b closed c closed" {
				t.Error(got)
			}
		})
	}
}

// A request that no route was found for is not looked up, and a table has its word.
func TestOverrideWithoutARoute(t *testing.T) {
	t.Parallel()
	x := &exchange.Exchange{}
	if _, ok := filter.Override(x, "a"); ok {
		t.Error("there is one")
	}
	x.Table = &mesh.RouteTable{PerFilter: map[string]mesh.Extension{"a": {Config: 7}}}
	if o, ok := filter.Override(x, "a"); !ok || o.Config != 7 {
		t.Errorf("%+v, %v", o, ok)
	}
}

// pieces is a body in pieces, of which here are here.
type pieces struct {
	list     []string
	here     int
	err      error // at the end
	trailers *header.List
}

func (p *pieces) Buffered() (bytebuf.Piece, bool, error) {
	s := strings.Join(p.list[:p.here], "")
	p.list, p.here = p.list[p.here:], 0
	return bytebuf.Of([]byte(s)), len(p.list) == 0 && p.err == nil, nil
}

func (p *pieces) Next(*socket.Worker) (bytebuf.Piece, bool, error) {
	if len(p.list) == 0 {
		return bytebuf.Piece{}, p.err == nil, p.err
	}
	s := p.list[0]
	p.list = p.list[1:]
	return bytebuf.Of([]byte(s)), len(p.list) == 0 && p.err == nil, nil
}

func (p *pieces) Trailers() *header.List { return p.trailers }

// upper is a stage that shouts, and puts the trailers behind.
type upper struct{ asked []string }

func (u *upper) Piece(p bytebuf.Piece, end bool, t *header.List) (bytebuf.Piece, error) {
	s := strings.ToUpper(string(p.Bytes()))
	u.asked = append(u.asked, s)
	if end && t != nil {
		s += " " + string(t.Get("x"))
	}
	if s == "BAD" {
		return bytebuf.Piece{}, errors.New("bad")
	}
	return bytebuf.Of([]byte(s)), nil
}
func (u *upper) Trailers(*header.List) *header.List { return nil }

func read(b codec.Body) (all []string, err error) {
	p, end, err := b.Buffered()
	for {
		all = append(all, string(p.Bytes()))
		if end || err != nil {
			return all, err
		}
		p, end, err = b.Next(nil)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	trailers := &header.List{}
	trailers.AddString("x", "behind")
	for _, c := range []struct {
		name  string
		src   pieces
		want  []string
		asked []string
		fails bool
	}{
		{"all is here", pieces{list: []string{"a", "b"}, here: 2}, []string{"AB"}, []string{"AB"}, false},
		{"nothing is here yet", pieces{list: []string{"a", "b"}}, []string{"", "A", "B"}, []string{"A", "B"}, false},
		{"empty", pieces{}, []string{""}, []string{""}, false},
		{"trailers", pieces{list: []string{"a", "b"}, here: 1, trailers: trailers}, []string{"A", "B behind"}, []string{"A", "B"}, false},
		{"trailers behind nothing", pieces{trailers: trailers}, []string{" behind"}, []string{""}, false},
		{"it breaks off", pieces{list: []string{"a"}, err: errors.New("gone")}, []string{"", "A", ""}, []string{"A"}, true},
		{"the stage fails", pieces{list: []string{"a", "bad", "c"}}, []string{"", "A", ""}, []string{"A", "BAD"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := &upper{}
			b := filter.Wrap(&c.src, u)
			got, err := read(b)
			if !slices.Equal(got, c.want) || (err != nil) != c.fails || !slices.Equal(u.asked, c.asked) {
				t.Errorf("read %q, %v, want %q; asked %q", got, err, c.want, u.asked)
			}
			if b.Trailers() != nil {
				t.Error("the trailers go on")
			}
		})
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	x := &exchange.Exchange{}
	for _, c := range []struct {
		name  string
		src   pieces
		want  string
		whole bool
		fails bool
	}{
		{"here", pieces{list: []string{"a", "b"}, here: 2}, "ab", true, false},
		{"in pieces", pieces{list: []string{"a", "b", "c"}, here: 1}, "abc", true, false},
		{"too much", pieces{list: []string{"a", strings.Repeat("x", filter.MaxCollected)}}, "", false, false},
		{"it breaks off", pieces{list: []string{"a"}, err: errors.New("gone")}, "", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, whole, err := filter.Collect(x, &c.src)
			if string(got) != c.want || whole != c.whole || (err != nil) != c.fails {
				t.Errorf("%q, %v, %v", got, whole, err)
			}
		})
	}
}

func TestHeld(t *testing.T) {
	t.Parallel()
	if got, err := read(filter.Held([]byte("all"))); err != nil || !slices.Equal(got, []string{"all"}) {
		t.Errorf("%q, %v", got, err)
	}
	b := filter.Held([]byte("all"))
	if p, end, err := b.Next(nil); string(p.Bytes()) != "all" || !end || err != nil {
		t.Errorf("%q, %v, %v", p.Bytes(), end, err)
	}
	if p, end, err := b.Next(nil); p.Len() != 0 || !end || err != nil {
		t.Errorf("once more: %q, %v, %v", p.Bytes(), end, err)
	}
	if _, err := read(filter.Broken(errors.New("gone"))); err == nil {
		t.Error("a broken body can be read")
	}
}
