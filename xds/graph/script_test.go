// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

var rewrite = flag.Bool("rewrite", false, "write the results of the scripts into testdata")

// TestScripts replays testdata/*.txtar: each holds "events", one a line, and "actions", what they lead to. An Apply is
// answered at once, with the rejections that "reject" lines before it announced.
//
//	start [lds] [cds] [keep] [forever] [c/TOKEN ...] [l/TOKEN ...] [s/TOKEN ...]
//	cds|lds|rds|eds|sds VERSION [TOKEN ...] [-NAME ...]     the last form is an incremental removal
//	dns CLUSTER ADDRESS... | dns CLUSTER !REASON
//	absent cds|lds|rds|eds NAME REASON
//	expired KIND NAME ... | types
//	connected | disconnected | fire REASON NAME | reject KIND NAME REASON... | held | counts | view KIND
//
// A kind, connected and disconnected may have "@SOURCE" at the end, and "start lds@SOURCE/15s" says where a type comes from and
// how long it is waited for. "expired KIND NAME..." are resources whose time is over, "-NAME" of eds and rds those that do not
// exist.
//
// A listener or a cluster (after ";") wants secrets as "tls(NAME)" and "ca(NAME)", those of the bootstrap with "@static"; SECRET
// is NAME:tls or NAME:ca. Configurations of filters are "filter(NAME)", or "default(NAME)" where they need not be waited for,
// of the types x and y; ecds brings NAME:TYPE, with ";" before what it wants itself, as a listener does. "reload TOKEN [!REASON]" is a change of the files of a secret.
//
// Tokens: CLUSTER:static|eds[(NAME)]|keep[(NAME)]|dns(NAME), LISTENER:[rds(TABLE)],CLUSTER..., TABLE:CLUSTER..., EDS:ADDRESS...; "#x"
// at the end makes other bytes of the same meaning. !NAME:REASON is a resource that does not decode.
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
				ar.Files = []txtar.File{ar.Files[0], {Name: "actions", Data: []byte(got)}}
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

// player runs a script against a machine.
type player struct {
	t       *testing.T
	m       *Machine
	out     strings.Builder
	last    *mesh.Snapshot
	rejects []mesh.Rejection
	nonce   int
}

func play(t *testing.T, events string) string {
	p := &player{t: t, last: &mesh.Snapshot{}}
	for line := range strings.Lines(events) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fmt.Fprintf(&p.out, "%s\n", line)
		p.line(strings.Fields(line))
	}
	return p.out.String()
}

func (p *player) line(f []string) {
	word, source, _ := strings.Cut(f[0], "@")
	switch word {
	case "start":
		p.start(f[1:])
	case "cds", "lds", "rds", "eds", "sds", "ecds", "srds", "vhds":
		p.nonce++
		p.step(parseResponse(f, p.nonce))
	case "absent":
		p.nonce++
		r := parseResponse([]string{f[1], "v" + fmt.Sprint(p.nonce)}, p.nonce)
		r.Absent, r.Full = []Absent{{f[2], f[3]}}, false
		p.step(r)
	case "reload":
		p.step(parseReload(f[1:]))
	case "dns":
		p.dns(f[1], f[2:])
	case "connected":
		p.step(Connected{source})
	case "demand":
		p.step(Demand{strings.Replace(f[1], "@", "\x00", 1), f[2]})
	case "disconnected":
		p.step(Disconnected{source})
	case "expired":
		kind, from, _ := strings.Cut(f[1], "@")
		e := Expired{Kind: kindNamed(kind), Source: from}
		for _, n := range f[2:] {
			e.Names = append(e.Names, keyOf(f[1], n))
		}
		p.step(e)
	case "types":
		for _, t := range p.m.Types() {
			fmt.Fprintf(&p.out, "  %v from %q: asked %v, responded %v, version %q, %d resources, NACK %q\n",
				t.Kind, t.Source, t.Asked, t.Responded, t.Version, t.Resources, t.Nack)
		}
	case "fire":
		p.fire(f[1], strings.Join(f[2:], " "))
	case "reject":
		p.rejects = append(p.rejects, mesh.Rejection{Kind: kindNamed(f[1]), Name: strings.Replace(f[2], "@", "\x00", 1), Reason: strings.Join(f[3:], " ")})
	case "held":
		for _, w := range p.m.Held() {
			fmt.Fprintf(&p.out, "  %v %q waits for %s\n", w.Kind, w.Name, strings.Join(w.For, ", "))
		}
	case "counts":
		fmt.Fprintf(&p.out, "  %+v\n", p.m.Counts())
	case "view":
		p.view(kindNamed(f[1]))
	default:
		p.t.Fatalf("unknown event %q", f[0])
	}
}

func (p *player) start(f []string) {
	s := Start{Sources: map[mesh.ResourceKind]string{}, Timeouts: map[mesh.ResourceKind]time.Duration{}}
	opt := Options{FetchTimeout: 15 * time.Second}
	for _, w := range f {
		w, after, timed := strings.Cut(w, "/")
		if timed && len(w) == 1 {
			w, timed = w+"/"+after, false
		}
		w, source, _ := strings.Cut(w, "@")
		if w == "lds" || w == "cds" {
			s.Sources[kindNamed(w)] = source
		}
		if timed {
			d, err := time.ParseDuration(after)
			if err != nil {
				p.t.Fatal(err)
			}
			s.Timeouts[kindNamed(w)] = d
		}
		switch {
		case w == "lds":
			s.Listeners = true
		case w == "cds":
			s.Clusters = true
		case w == "keep":
			opt.KeepOnEmpty = true
		case w == "forever":
			opt.FetchTimeout = 0
		case strings.HasPrefix(w, "c/"):
			s.Static = append(s.Static, parseResource("cds", "", w[2:]))
		case strings.HasPrefix(w, "s/"):
			r := parseResource("sds", "", w[2:])
			r.Name = sourcekey.Join(r.Name, sourcekey.Static)
			s.Static = append(s.Static, r)
		case strings.HasPrefix(w, "l/"):
			s.Static = append(s.Static, parseResource("lds", "", w[2:]))
		default:
			p.t.Fatalf("start: unknown word %q", w)
		}
	}
	p.m = New(opt)
	p.step(s)
}

func (p *player) step(ev Event) {
	for _, a := range p.m.Step(ev) {
		p.print(a)
		if apply, ok := a.(Apply); ok {
			rejected := p.rejects
			p.rejects = nil
			p.last = apply.Snapshot
			p.step(Applied{rejected})
		}
	}
}

func (p *player) print(a Action) {
	switch a := a.(type) {
	case Subscribe:
		fmt.Fprintf(&p.out, "  subscribe %v", a.Kind)
		for _, n := range a.Add {
			fmt.Fprintf(&p.out, " +%s", keyText(n))
		}
		for _, n := range a.Remove {
			fmt.Fprintf(&p.out, " -%s", keyText(n))
		}
		p.out.WriteByte('\n')
	case Answered:
		fmt.Fprintf(&p.out, "  answered %s %s\n", keyText(a.Set), a.Host)
	case Refresh:
		fmt.Fprintf(&p.out, "  refresh %s\n", from(a.Kind, a.Source))
	case Ack:
		fmt.Fprintf(&p.out, "  ack %s %s %s\n", from(a.Kind, a.Source), a.Nonce, a.Version)
	case Nack:
		fmt.Fprintf(&p.out, "  NACK %s %s: %s\n", from(a.Kind, a.Source), a.Nonce, a.Detail)
	case Watch:
		fmt.Fprintf(&p.out, "  look up %s\n", a.Cluster.Name)
	case Unwatch:
		fmt.Fprintf(&p.out, "  end look-up %d\n", a.Watch)
	case SetEndpoints:
		fmt.Fprintf(&p.out, "  endpoints %s = %s\n", a.Cluster, setText(a.Set))
	case SetPart:
		text := "gone"
		if a.Value != nil {
			text = typeOf(&Resource{Value: a.Value})
		}
		fmt.Fprintf(&p.out, "  %v %s = %s\n", a.Kind, keyText(a.Key), text)
	case StartTimer:
		w := p.m.timers[a.Timer]
		if w != nil { // not ended again within the step
			fmt.Fprintf(&p.out, "  wait %s at most %v\n", waitText(w), a.After)
		}
	case StopTimer:
	case Notify:
		for _, e := range a.Config.Errors {
			fmt.Fprintf(&p.out, "  notice %d: %v %q: %s\n", a.Kind, e.Kind, e.Name, e.Reason)
		}
	case Ready:
		p.out.WriteString("  READY\n")
	case Apply:
		p.apply(a.Snapshot)
	default:
		p.t.Fatalf("unknown action %T", a)
	}
}

// apply prints a snapshot; a resource whose pointer changed has a star.
func (p *player) apply(s *mesh.Snapshot) {
	v := s.Versions
	fmt.Fprintf(&p.out, "  APPLY %d cds=%s lds=%s rds=%s\n", s.ID, v.Clusters, v.Listeners, v.Routes)
	printMap(&p.out, "clusters", s.Clusters, p.last.Clusters)
	printMap(&p.out, "routes", s.RouteTables, p.last.RouteTables)
	printMap(&p.out, "listeners", s.Listeners, p.last.Listeners)
	p.out.WriteString(setsText(s, p.last))
}

func printMap[V comparable](b *strings.Builder, title string, now, old map[string]V) {
	if len(now) == 0 && len(old) == 0 {
		return
	}
	var words []string
	for name, v := range now {
		if was, ok := old[name]; !ok || was != v {
			name += "*"
		}
		words = append(words, keyText(name))
	}
	slices.Sort(words)
	fmt.Fprintf(b, "    %s: %s\n", title, strings.Join(words, " "))
}

func (p *player) dns(cluster string, answer []string) {
	ids := make([]WatchID, 0, 2)
	for id, s := range p.m.watches {
		if s.looked.Name == cluster {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		p.t.Fatalf("no look-up for %s", cluster)
	}
	ev := Endpoints{Watch: slices.Max(ids)}
	if reason, failed := strings.CutPrefix(answer[0], "!"); failed {
		ev.Err = reason
	} else {
		ev.Set = endpointSet("", answer)
	}
	p.step(ev)
}

func (p *player) fire(reason, name string) {
	for id, w := range p.m.timers {
		if waitText(w) == strings.TrimSpace(reason+" "+name) {
			p.step(Fired{id})
			return
		}
	}
	p.t.Fatalf("no wait %s %s runs", reason, name)
}

func (p *player) view(kind mesh.ResourceKind) {
	text := func(r *Resource) string {
		if r == nil {
			return "-"
		}
		return r.Version + "/" + string(r.Raw)
	}
	views := p.m.Views(kind)
	if IsPart(kind) {
		views = p.m.Parts(kind)
	}
	for _, v := range views {
		fmt.Fprintf(&p.out, "  %s static=%v leaving=%v live=%s next=%s", v.Name, v.Static, v.Leaving, text(v.Live), text(v.Next))
		if v.Failure != nil {
			fmt.Fprintf(&p.out, " failure=%s: %s", v.Failure.Version, v.Failure.Reason)
		}
		p.out.WriteByte('\n')
	}
}

// keyText is a key as scripts write it, and from a kind.
func keyText(key string) string { return strings.Replace(key, "\x00", "@", 1) }

func from(kind mesh.ResourceKind, source string) string {
	if source == "" {
		return kind.String()
	}
	return kind.String() + "@" + source
}

// keyOf is the key of a name in a line of a kind.
func keyOf(kind, name string) string {
	if word, source, _ := strings.Cut(kind, "@"); word != "cds" && word != "lds" {
		return sourcekey.Join(name, source)
	}
	return name
}

func waitText(w *wait) string {
	reason := [...]string{"first", "endpoints", "look-up", "table", "missing", "release", "", "set", "demand", "keep"}[w.reason]
	if w.reason == waitPart {
		reason = w.kind.String()
	}
	if w.reason == waitFirst || w.reason == waitSet {
		return strings.TrimSuffix(reason+" "+w.kind.String()+"@"+sourcekey.Source(w.name), "@")
	}
	return reason + " " + keyText(w.name)
}

func setText(s *mesh.EndpointSet) string {
	var words []string
	for _, l := range s.Localities {
		for _, e := range l.Endpoints {
			words = append(words, e.Address.IP.Addr().String())
		}
	}
	return "[" + strings.Join(words, " ") + "]"
}

func kindNamed(s string) mesh.ResourceKind {
	switch s {
	case "cds", "cluster":
		return mesh.KindCluster
	case "eds", "endpoints":
		return mesh.KindEndpoints
	case "lds", "listener":
		return mesh.KindListener
	case "rds", "route":
		return mesh.KindRouteTable
	case "srds", "scope":
		return mesh.KindScope
	case "vhds", "host":
		return mesh.KindVirtualHost
	case "sds", "secret":
		return mesh.KindSecret
	case "ecds", "extension":
		return mesh.KindExtension
	}
	panic("no kind " + s)
}

// parseResponse makes a Response of "cds v1 TOKEN...".
func parseResponse(f []string, nonce int) Response {
	word, source, _ := strings.Cut(f[0], "@")
	r := Response{Kind: kindNamed(word), Source: source, Version: f[1], Nonce: fmt.Sprint("n", nonce)}
	r.Full = r.Kind == mesh.KindCluster || r.Kind == mesh.KindListener || r.Kind == mesh.KindScope
	for _, w := range f[2:] {
		switch w[0] {
		case '!':
			name, reason, _ := strings.Cut(w[1:], ":")
			r.Bad = append(r.Bad, Bad{Name: keyOf(f[0], name), Reason: strings.ReplaceAll(reason, "_", " "), Raw: []byte(w)})
		case '-':
			r.Full = false
			r.Removed = append(r.Removed, keyOf(f[0], w[1:]))
		case '+':
			r.Full = false
			r.Resources = append(r.Resources, parseResource(word, r.Version, w[1:]))
		case '=': // =NAME:ALIAS
			name, alias, _ := strings.Cut(w[1:], ":")
			if r.Aliases == nil {
				r.Aliases = map[string][]string{}
			}
			r.Aliases[keyOf(f[0], name)] = append(r.Aliases[keyOf(f[0], name)], keyOf(f[0], alias))
		default:
			r.Resources = append(r.Resources, parseResource(word, r.Version, w))
		}
	}
	for _, res := range r.Resources {
		res.Name = keyOf(f[0], res.Name)
	}
	return r
}

// parseResource makes a Resource of a token.
func parseResource(kind, version, token string) *Resource {
	name, rest, _ := strings.Cut(token, ":")
	rest, _, _ = strings.Cut(rest, "#")
	r := &Resource{Name: name, Raw: []byte(token), Version: version}
	rest, secrets, _ := strings.Cut(rest, ";")
	if kind == "ecds" && secrets != "" {
		wantAll(r, strings.Split(secrets, ","))
	} else if secrets != "" {
		for w := range strings.SplitSeq(secrets, ",") {
			wantSecret(r, w)
		}
	}
	var words []string
	if rest != "" {
		words = strings.Split(rest, ",")
	}
	switch kind {
	case "cds":
		r.Value = parseCluster(name, rest)
	case "eds":
		r.Value = endpointSet(version, words)
	case "sds":
		r.Value = parseSecret(name, rest)
	case "ecds":
		r.Value = &mesh.Extension{Name: name, TypeURL: rest}
	case "rds":
		parseTable(r, words)
	case "srds", "vhds":
		parseMember(r, kind, words)
	case "lds":
		r.Value = &mesh.Listener{Name: name}
		wantAll(r, words)
	}
	return r
}

// wantAll makes a listener, or the configuration of a filter, name what it wants.
func wantAll(r *Resource, words []string) {
	for _, w := range words {
		if t, ok := strings.CutPrefix(w, "rds("); ok {
			name, source, _ := strings.Cut(strings.TrimSuffix(t, ")"), "@")
			r.RouteTables = append(r.RouteTables, sourcekey.Join(name, source))
		} else if !wantSecret(r, w) && !wantSet(r, w) {
			r.Clusters = append(r.Clusters, w)
		}
	}
}

// wantSecret makes a resource name a secret, where a word is such a name.
func wantSecret(r *Resource, w string) bool {
	kind, name, ok := strings.Cut(strings.TrimSuffix(w, ")"), "(")
	ref := mesh.PartRef{Kind: mesh.KindExtension, Types: "x y", Default: kind == "default"}
	switch kind {
	case "tls", "ca":
		ref.Kind, ref.Types = mesh.KindSecret, parseSecret("", kind).Type().String()
	case "filter", "default":
	default:
		ok = false
	}
	if !ok {
		return false
	}
	name, source, _ := strings.Cut(name, "@")
	ref.Key = sourcekey.Join(name, source)
	r.Parts = append(r.Parts, ref)
	return true
}

func parseSecret(name, what string) *mesh.Secret {
	if what == "tls" {
		return &mesh.Secret{Name: name, Certificate: &mesh.TLSCertificate{}}
	}
	return &mesh.Secret{Name: name, Validation: &mesh.TLSValidation{}}
}

// parseReload makes a Reload of "TOKEN [!REASON]".
func parseReload(f []string) Reload {
	ev := Reload{Resource: parseResource("sds", "", f[0])}
	if len(f) > 1 {
		ev.Bad = &Bad{Name: ev.Resource.Name, Reason: strings.ReplaceAll(f[1][1:], "_", " ")}
	}
	return ev
}

func parseCluster(name, rest string) *mesh.Cluster {
	how, arg, _ := strings.Cut(strings.TrimSuffix(rest, ")"), "(")
	c := &mesh.Cluster{Name: name}
	switch how {
	case "static":
		c.Endpoints = &mesh.EndpointSet{}
	case "eds", "keep":
		service, source, _ := strings.Cut(arg, "@")
		c.Discovery, c.EDSName = mesh.EDS, sourcekey.Join(cmp.Or(service, name), source)
		if how == "keep" {
			c.KeepLast = 10 * time.Second
		}
	case "dns":
		c.Discovery, c.DNS = mesh.StrictDNS, &mesh.DNS{Targets: []mesh.DNSTarget{{Host: arg, Port: 80}}}
	default:
		panic("no discovery " + rest)
	}
	return c
}

func endpointSet(version string, addresses []string) *mesh.EndpointSet {
	s := &mesh.EndpointSet{Version: version}
	if len(addresses) == 0 {
		return s
	}
	var l mesh.LocalityEndpoints
	for _, a := range addresses {
		ip := netip.AddrPortFrom(netip.MustParseAddr(a), 80)
		l.Endpoints = append(l.Endpoints, mesh.Endpoint{Address: mesh.Address{IP: ip}})
	}
	s.Localities = append(s.Localities, l)
	return s
}

func TestSameEventsSameActions(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first := play(t, string(ar.Files[0].Data))
		for range 5 {
			if again := play(t, string(ar.Files[0].Data)); !bytes.Equal([]byte(first), []byte(again)) {
				t.Fatalf("%s: two runs differ:\n%s\n---\n%s", file, first, again)
			}
		}
	}
}
