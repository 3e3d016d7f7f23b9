// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestTargets: where a verb looks, by what the command line, the environment and the context say, in this order.
func TestTargets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const proxies, bus = `"proxies": [{"name": "p", "admin": "./p.sock"}]`, `"bus": {"url": "nats://c:1", "stream": "S", "subject": "x.>"}`
	both, onlyBus := write("both.json", "{"+proxies+","+bus+"}"), write("bus.json", "{"+bus+"}")
	nothing, wrong := write("nothing.json", "{}"), write("wrong.json", `{"proxies": [{"name": "p", "admin": "p"}], "bus": {"url": "kafka://k:1"}}`)
	for _, c := range []struct {
		name, args, env string
		proxies, bus    string
		live            bool // live events come from the bus
	}{
		{"the context", "--context " + both, "", "./p.sock", "nats://c:1 S x.>", false},
		{"a context without proxies", "--context " + onlyBus, "", "4: there is no proxy to ask", "nats://c:1 S x.>", true},
		{"a context without anything", "--context " + nothing, "", "4: there is no proxy to ask", "4: there is no event bus to read", false},
		{"a context with what cannot be", "--context " + wrong, "", `2: "p" is no administration address`, "2: this is no address of an event bus: k:1", false},
		{"a proxy of the command line", "--admin a:1,b:2 --admin ./c --context " + both, "", "a:1 b:2 ./c", "nats://c:1 S x.>", false},
		{"a bus of the command line", "--bus nats://b:1 --context " + both, "", "./p.sock", "nats://b:1 MESHTAP meshtap.events.>", true},
		{"both of the command line", "--bus nats://b:1 --admin a:1", "", "a:1", "nats://b:1 MESHTAP meshtap.events.>", false},
		{"a stream of its own", "--stream T --context " + both, "", "./p.sock", "nats://c:1 T x.>", false},
		{"the environment", "", "MESHTAP_ADMIN=a:1 MESHTAP_BUS=nats://b:1", "a:1", "nats://b:1 MESHTAP meshtap.events.>", true},
		{"the context of the environment", "", "MESHTAP_CONTEXT=" + both, "./p.sock", "nats://c:1 S x.>", false},
		{"a variable before a context of the environment", "", "MESHTAP_ADMIN=a:1 MESHTAP_CONTEXT=" + both, "a:1", "nats://c:1 S x.>", false},
		{"the command line's context before a variable", "--context " + both, "MESHTAP_ADMIN=a:1 MESHTAP_BUS=nats://b:1", "./p.sock", "nats://c:1 S x.>", false},
		{"the command line's proxy before a bus of the environment", "--admin a:1", "MESHTAP_BUS=nats://b:1", "a:1", "nats://b:1 MESHTAP meshtap.events.>", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var targets Targets
			cmd := &cobra.Command{}
			cmd.SetErr(&strings.Builder{})
			targets.Add(cmd)
			targets.AddBus(cmd)
			if err := cmd.ParseFlags(strings.Fields(c.args)); err != nil {
				t.Fatal(err)
			}
			if err := FromEnv(cmd, func(name string) (string, bool) {
				for v := range strings.FieldsSeq(c.env) {
					if value, ok := strings.CutPrefix(v, name+"="); ok {
						return value, true
					}
				}
				return "", false
			}); err != nil {
				t.Fatal(err)
			}
			var admins []string
			list, err := targets.Proxies()
			for _, p := range list {
				admins = append(admins, p.Admin)
			}
			if got := orError(strings.Join(admins, " "), err); got != c.proxies {
				t.Errorf("proxies: %s, want %s", got, c.proxies)
			}
			b, err := targets.Bus()
			if got := orError(b.URL+" "+b.Stream+" "+b.Subject, err); got != c.bus {
				t.Errorf("bus: %s, want %s", got, c.bus)
			}
			if live, err := targets.WantsBus(); live != c.live || err != nil {
				t.Errorf("live events of the bus: %v, %v", live, err)
			}
		})
	}
}

func orError(s string, err error) string {
	if err != nil {
		return fmt.Sprintf("%d: %v", asError(err).Exit, err)
	}
	return s
}

func TestNamed(t *testing.T) {
	t.Parallel()
	all := []Proxy{{Name: "web-1", Service: "web", Admin: "./1"}, {Name: "web-2", Service: "web", Admin: "./2"}, {Admin: "./3"}}
	for names, want := range map[string]string{
		"":        "./1 ./2 ./3",
		"web-2":   "./2",
		"web":     "./1 ./2",
		"./3":     "./3",
		"web-3":   `2: there is no proxy "web-3" did you mean web-1?`,
		"weather": `2: there is no proxy "weather" known are web-1, web-2, ./3`,
	} {
		got, err := Named(all, strings.Fields(names))
		var admins []string
		for _, p := range got {
			admins = append(admins, p.Admin)
		}
		text := orError(strings.Join(admins, " "), err)
		if err != nil {
			text += " " + asError(err).Hint
		}
		if text != want {
			t.Errorf("%q: %s, want %s", names, text, want)
		}
	}
}

// TestReadContext: what is too long, no context, or of a process that has ended, is refused.
func TestReadContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"long":   {`{"name": "` + strings.Repeat("x", maxContext) + `"}`, "is longer than 1048576 bytes"},
		"broken": {`{"pid": "one"}`, "is not a context"},
		"ended":  {`{"name": "old", "pid": 2147483646}`, "is ignored: its process 2147483646 has ended"},
		"alive":  {fmt.Sprintf(`{"name": "now", "pid": %d}`, os.Getpid()), ""},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readContext(path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestContextPath(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  map[string]string
		want string
	}{
		"named":                  {map[string]string{"MESHTAP_CONTEXT": "x.json", "HOME": "/h", "XDG_STATE_HOME": "/s"}, "x.json"},
		"state":                  {map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/s/meshtap/context.json"},
		"home":                   {map[string]string{"HOME": "/h"}, "/h/.local/state/meshtap/context.json"},
		"state that is no place": {map[string]string{"HOME": "/h", "XDG_STATE_HOME": "s"}, "/h/.local/state/meshtap/context.json"},
		"nowhere":                {nil, ""},
	} {
		if got := ContextPath(func(k string) string { return tc.env[k] }); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
