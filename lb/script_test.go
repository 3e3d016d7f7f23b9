// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/lb"
)

var rewrite = flag.Bool("rewrite", false, "write what the code does into testdata")

// eachArchive runs f on the archives of a folder; f returns what their files should hold.
func eachArchive(t *testing.T, pattern string, f func(t *testing.T, a *txtar.Archive)) {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archive matches %s: %v", pattern, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(want)
			f(t, a)
			got := txtar.Format(a)
			if *rewrite {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if string(got) != string(want) {
				t.Errorf("%s differs; look at what go test -rewrite changes. Got:\n%s", path, got)
			}
		})
	}
}

// TestPickScripts runs testdata/pick. An archive has a cluster,
//
//	policy NAME [JSON]               the policy, by the end of its extension name, and its message
//	panic PERCENT                    the panic threshold; the default is 50
//	seed N                           the seed of the set; the default is 0
//	host NAME [key=value...]         weight, priority, health, active
//
// and a script, each line of which is followed by " -> " and its result:
//
//	pick N       the hosts that N requests get, in order, with a "!" where it is a panic
//	count N      how often each host is picked by N requests
//	serve N      as pick, and the requests stay in flight
//	levels       the load of each priority, as healthy+degraded
//	set NAME key=value...   changes a host and builds the next set
func TestPickScripts(t *testing.T) {
	t.Parallel()
	eachArchive(t, "testdata/pick/*.txtar", func(t *testing.T, a *txtar.Archive) {
		s := newScript(t, string(a.Files[0].Data))
		var out strings.Builder
		for line := range strings.Lines(string(a.Files[1].Data)) {
			command, _, _ := strings.Cut(strings.TrimSpace(line), " -> ")
			out.WriteString(command)
			if result := s.run(strings.Fields(command)); result != "" {
				out.WriteString(" -> " + result)
			}
			out.WriteByte('\n')
		}
		a.Files[1].Data = []byte(out.String())
	})
}

// script is a cluster that commands are run on.
type script struct {
	t       *testing.T
	names   []string
	hosts   []*lb.Host
	options lb.Options
	set     *lb.Set
	request lb.Request
}

func newScript(t *testing.T, cluster string) *script {
	s := &script{t: t, options: lb.Options{PanicThreshold: 50}, request: lb.Request{Rand: 2}}
	for line := range strings.Lines(cluster) {
		switch f := strings.Fields(line); f[0] {
		case "policy":
			s.policy(f[1], strings.Join(f[2:], " "))
		case "panic":
			s.options.PanicThreshold = s.number(f[1])
		case "seed":
			s.options.Seed = uint64(s.number(f[1]))
		case "host":
			s.names = append(s.names, f[1])
			s.hosts = append(s.hosts, &lb.Host{Weight: 1})
			s.change(s.hosts[len(s.hosts)-1], f[2:])
		default:
			t.Fatalf("what is %q?", line)
		}
	}
	s.set = lb.NewSet(s.hosts, s.options, nil)
	return s
}

func (s *script) policy(name, json string) {
	for _, row := range lb.Rows() {
		if !strings.HasSuffix(row.Name, "."+name) {
			continue
		}
		parsed, err := row.Parse(row.TypeURLs[0], encode(s.t, row.TypeURLs[0], json))
		if err != nil {
			s.t.Fatal(err)
		}
		s.options.Build, s.options.Config = row.Build, parsed.Config
		return
	}
	s.t.Fatalf("no policy %q", name)
}

func (s *script) number(text string) float64 {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) change(h *lb.Host, settings []string) {
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		switch key {
		case "weight":
			h.Weight = uint32(s.number(value))
		case "priority":
			h.Priority = uint32(s.number(value))
		case "active":
			h.Active.Store(int64(s.number(value)))
		case "health":
			h.Health = lb.Health(slices.IndexFunc([]lb.Health{lb.Healthy, lb.Degraded, lb.Unhealthy},
				func(h lb.Health) bool { return h.String() == value }))
		default:
			s.t.Fatalf("a host has no %q", key)
		}
	}
}

func (s *script) run(f []string) string {
	switch f[0] {
	case "pick", "serve":
		var picked []string
		for range int(s.number(f[1])) {
			i, panicked := s.set.Pick(&s.request)
			name := "none"
			if i >= 0 {
				name = s.names[i]
			}
			if panicked {
				name += "!"
			}
			if f[0] == "serve" {
				s.hosts[i].Active.Add(1)
			}
			picked = append(picked, name)
		}
		return strings.Join(picked, " ")
	case "count":
		counts := make([]int, len(s.hosts))
		for range int(s.number(f[1])) {
			i, _ := s.set.Pick(&s.request)
			counts[i]++
		}
		var out []string
		for i, n := range counts {
			out = append(out, fmt.Sprintf("%s=%d", s.names[i], n))
		}
		return strings.Join(out, " ")
	case "levels":
		var out []string
		for _, l := range s.set.Levels() {
			text := fmt.Sprintf("%d: %d+%d", l.Priority, l.HealthyLoad, l.DegradedLoad)
			if l.Panic {
				text += " panic"
			}
			out = append(out, text)
		}
		return strings.Join(out, ", ")
	case "set":
		s.change(s.hosts[slices.Index(s.names, f[1])], f[2:])
		s.set = lb.NewSet(s.hosts, s.options, s.set)
		return ""
	}
	s.t.Fatalf("what is %q?", f)
	return ""
}

// TestConfigScripts runs testdata/config: each file of an archive is named after its policy and a case, and holds a
// message as JSON, followed by what became of it.
func TestConfigScripts(t *testing.T) {
	t.Parallel()
	rows := lb.Rows()
	eachArchive(t, "testdata/config/*.txtar", func(t *testing.T, a *txtar.Archive) {
		for i := range a.Files {
			f := &a.Files[i]
			policy, _, _ := strings.Cut(f.Name, ":")
			row := rows[slices.IndexFunc(rows, func(r registry.Row[lb.Builder]) bool { return strings.HasSuffix(r.Name, "."+policy) })]
			json, _, _ := strings.Cut(string(f.Data), "\n=> ")
			json = strings.TrimSpace(json)
			parsed, err := row.Parse(row.TypeURLs[0], encode(t, row.TypeURLs[0], json))
			result := fmt.Sprintf("%+v", parsed.Config)
			if parsed.NoEffect != nil {
				result += fmt.Sprintf(" without effect: %v", parsed.NoEffect)
			}
			if err != nil {
				result = "error: " + err.Error()
			}
			f.Data = []byte(json + "\n=> " + result + "\n")
		}
	})
}

// encode returns the serialized message of the type that the JSON describes; none is the empty message.
func encode(t *testing.T, typ, json string) []byte {
	t.Helper()
	if json == "" {
		return nil
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(typ))
	if err != nil {
		t.Fatal(err)
	}
	m := mt.New().Interface()
	if err := protojson.Unmarshal([]byte(json), m); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRows(t *testing.T) {
	t.Parallel()
	for _, row := range lb.Rows() {
		if _, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(row.TypeURLs[0])); err != nil {
			t.Errorf("%s: %v", row.Name, err)
		}
		if _, err := row.Parse(row.TypeURLs[0], []byte("\xff")); err == nil {
			t.Errorf("%s reads bytes that are no message", row.Name)
		}
		// Field 1000 is of no version of these messages.
		parsed, err := row.Parse(row.TypeURLs[0], []byte{0xc0, 0x3e, 1})
		if err != nil || len(parsed.NoEffect) != 1 {
			t.Errorf("%s with an unknown field: %v, %v; want it reported", row.Name, parsed, err)
		}
	}
}

// FuzzParse reads any bytes as the message of each policy: what is accepted must build and pick.
func FuzzParse(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0x0a, 0x02, 0x08, 0x05})
	f.Add([]byte{0x30, 1, 0x12, 9, 9, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, row := range lb.Rows() {
			parsed, err := row.Parse(row.TypeURLs[0], b)
			if err != nil {
				continue
			}
			hosts := hostsOf(1, 2, 3, 4, 5)
			s := lb.NewSet(hosts, lb.Options{Build: row.Build, Config: parsed.Config}, nil)
			r := lb.Request{Rand: 1}
			for k := range 20 {
				if i, _ := s.Pick(&r); i >= 0 {
					hosts[i].Active.Add(int64(k))
				} else if row.TypeURLs[0] != lb.ClusterProvidedType {
					t.Fatalf("%s with %+v picks nothing", row.Name, parsed.Config)
				}
			}
		}
	})
}
