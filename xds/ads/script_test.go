// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

var rewrite = flag.Bool("rewrite", false, "write the results of the scripts into testdata")

// TestScripts replays testdata/*.txtar: each holds "events", and "requests", what is sent after each line of them. Events
// of one line, with semicolons between them, come before anything is sent.
//
//	start delta|sotw [node-once]
//	subscribe TYPE [NAME ...] [-NAME ...]     refresh TYPE
//	recv TYPE NONCE VERSION [TOKEN ...]        ack TYPE NONCE [VERSION]        nack TYPE NONCE REASON [NAME ...]
//	restart     after DURATION
//
// Tokens: NAME@VERSION is a resource, with "/DURATION" at the end its time to live; ~NAME/DURATION a sign of life; -NAME a
// removal; !NAME what cannot be sent. Underscores of a reason are spaces.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(ar.Files) == 0 || ar.Files[0].Name != "events" {
				t.Fatal("the first file must be events")
			}
			got := play(t, string(ar.Files[0].Data))
			if *rewrite {
				ar.Files = []txtar.File{ar.Files[0], {Name: "requests", Data: []byte(got)}}
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(ar.Files) != 2 || got != string(ar.Files[1].Data) {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// player runs a script against a half.
type player struct {
	t   *testing.T
	h   half
	out strings.Builder
	now time.Time
}

func play(t *testing.T, events string) string {
	p := &player{t: t, now: time.Unix(1000, 0)}
	for line := range strings.Lines(events) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fmt.Fprintf(&p.out, "%s\n", line)
		for event := range strings.SplitSeq(line, ";") {
			p.line(strings.Fields(event))
		}
		p.requests()
	}
	return p.out.String()
}

func typeNamed(word string) string {
	if url := map[string]string{"cds": cds, "eds": eds, "lds": lds, "rds": rds}[word]; url != "" {
		return url
	}
	return "type/" + word
}

func (p *player) line(f []string) {
	switch f[0] {
	case "start":
		cfg := Config{
			Types: []string{cds, eds, lds, rds}, Node: &corepb.Node{Id: "me"}, NodeOnFirstOnly: slices.Contains(f, "node-once"),
			Random: func() float64 { return 0.5 },
		}
		p.h = newSotw(cfg)
		if f[1] == "delta" {
			p.h = newDelta(cfg)
		}
	case "subscribe":
		var add, remove []string
		for _, n := range f[2:] {
			if name, less := strings.CutPrefix(n, "-"); less {
				remove = append(remove, name)
			} else {
				add = append(add, n)
			}
		}
		p.h.subscribe(typeNamed(f[1]), add, remove)
	case "refresh":
		p.h.refresh(typeNamed(f[1]))
	case "recv":
		p.recv(f)
	case "ack":
		p.h.ack(typeNamed(f[1]), f[2], strings.Join(f[3:], ""))
	case "nack":
		p.h.refuse(typeNamed(f[1]), nack{nonce: f[2], detail: strings.ReplaceAll(f[3], "_", " "), names: f[4:]}, p.now)
	case "restart":
		p.h.restart()
	case "after":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
		for e, _, ok := p.h.expire(p.now); ok; e, _, ok = p.h.expire(p.now) {
			fmt.Fprintf(&p.out, "  expired %s %v\n", e.TypeURL, e.Names)
		}
	default:
		p.t.Fatalf("unknown event %q", f[0])
	}
}

func (p *player) recv(f []string) {
	url := typeNamed(f[1])
	var m proto.Message
	if _, isDelta := p.h.(*delta); isDelta {
		r := &discoverypb.DeltaDiscoveryResponse{TypeUrl: url, Nonce: f[2], SystemVersionInfo: f[3]}
		r.Resources, r.RemovedResources, r.ResourceErrors = p.tokens(url, f[4:])
		m = r
	} else {
		r := &discoverypb.DiscoveryResponse{TypeUrl: url, Nonce: f[2], VersionInfo: f[3]}
		var list []*discoverypb.Resource
		list, _, r.ResourceErrors = p.tokens(url, f[4:])
		for _, w := range list {
			b, err := proto.Marshal(w)
			if err != nil {
				p.t.Fatal(err)
			}
			r.Resources = append(r.Resources, &anypb.Any{TypeUrl: wrapperType, Value: b})
		}
		m = r
	}
	ev, v := p.h.receive(m, p.now)
	fmt.Fprintf(&p.out, "  %s", [...]string{fresh: "told", stranger: "a stranger", duplicate: "a duplicate", alive: "alive"}[v])
	if v == fresh {
		for _, r := range ev.Resources {
			fmt.Fprintf(&p.out, " %s", r.Bytes)
		}
		for _, n := range ev.Removed {
			fmt.Fprintf(&p.out, " -%s", n)
		}
		for _, a := range ev.Absent {
			fmt.Fprintf(&p.out, " !%s", a.Name)
		}
		for _, n := range ev.Alive {
			fmt.Fprintf(&p.out, " ~%s", n)
		}
	}
	p.out.WriteByte('\n')
}

func (p *player) tokens(url string, tokens []string) (
	list []*discoverypb.Resource, removed []string, errors []*discoverypb.ResourceError,
) {
	for _, token := range tokens {
		token, life, _ := strings.Cut(token, "/")
		r := &discoverypb.Resource{Name: strings.TrimLeft(token, "~-!")}
		if life != "" {
			d, err := time.ParseDuration(life)
			if err != nil {
				p.t.Fatal(err)
			}
			r.Ttl = durationpb.New(d)
		}
		switch token[0] {
		case '-':
			removed = append(removed, r.Name)
		case '!':
			errors = append(errors, &discoverypb.ResourceError{ResourceName: &discoverypb.ResourceName{Name: r.Name}})
		case '~':
			list = append(list, r)
		default:
			r.Name, r.Version, _ = strings.Cut(token, "@")
			r.Aliases = []string{"alias-of-" + r.Name}
			r.Resource = &anypb.Any{TypeUrl: url, Value: []byte(token)}
			list = append(list, r)
		}
	}
	return list, removed, errors
}

// requests prints what is to be sent now.
func (p *player) requests() {
	for {
		m, wait := p.h.next(p.now)
		switch m := m.(type) {
		case *discoverypb.DeltaDiscoveryRequest:
			p.delta(m)
		case *discoverypb.DiscoveryRequest:
			p.sotw(m)
		default:
			if wait > 0 {
				fmt.Fprintf(&p.out, "  the next one in %v\n", wait)
			}
			return
		}
	}
}

func (p *player) sotw(r *discoverypb.DiscoveryRequest) {
	fmt.Fprintf(&p.out, "  > %s %v", strings.TrimPrefix(r.GetTypeUrl(), "type/"), r.GetResourceNames())
	if v := r.GetVersionInfo(); v != "" {
		fmt.Fprintf(&p.out, " version %s", v)
	}
	p.answer(r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetNode())
}

func (p *player) delta(r *discoverypb.DeltaDiscoveryRequest) {
	fmt.Fprintf(&p.out, "  > %s", strings.TrimPrefix(r.GetTypeUrl(), "type/"))
	for _, n := range r.GetResourceNamesSubscribe() {
		fmt.Fprintf(&p.out, " +%s", n)
	}
	for _, n := range r.GetResourceNamesUnsubscribe() {
		fmt.Fprintf(&p.out, " -%s", n)
	}
	if have := r.GetInitialResourceVersions(); len(have) > 0 {
		p.out.WriteString(" have")
		for _, n := range slices.Sorted(maps.Keys(have)) {
			fmt.Fprintf(&p.out, " %s@%s", n, have[n])
		}
	}
	p.answer(r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), r.GetNode())
}

func (p *player) answer(nonce, detail string, node *corepb.Node) {
	if nonce != "" {
		fmt.Fprintf(&p.out, " nonce %s", nonce)
	}
	if detail != "" {
		fmt.Fprintf(&p.out, " error %q", detail)
	}
	if node != nil {
		p.out.WriteString(" node")
	}
	p.out.WriteByte('\n')
}
