// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goyaml "github.com/goccy/go-yaml"
)

func TestReadSinks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, err string
		want      []string
	}{
		"two":      {"- name: a\n  typed_config: {\"@type\": t, n: 1}\n- {name: b}\n", "", []string{`{"name":"a","typed_config":{"@type":"t","n":1}}`, `{"name":"b"}`}},
		"nothing":  {"", "a list of sinks", nil},
		"no list":  {"name: a\n", "a list of sinks", nil},
		"no sinks": {"- a\n", "a list of sinks", nil},
		"no YAML":  {"- {a\n", "a list of sinks", nil},
		"a colon":  {"- name: 'x: y'\n", "", []string{`{"name":"x: y"}`}},
	} {
		path := filepath.Join(t.TempDir(), "sinks.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSinks(path)
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := ReadSinks("/nowhere/at/all"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// The bootstrap of a sidecar has the demo's own sink and those that were added, and each of them whole.
func TestBootstrapSinks(t *testing.T) {
	t.Parallel()
	for _, sinks := range [][]string{nil, {`{"name":"a","typed_config":{"text":"- {x}: #y"}}`, `{"name":"b"}`}} {
		text, err := fill(bootstrapText, map[string]any{
			"Proxy": "p", "Service": "s", "Admin": "/a", "Control": "/c", "BusURL": "nats://b", "Stream": "S", "TokenFile": "/t", "Sinks": sinks,
		})
		if err != nil {
			t.Fatal(err)
		}
		var b struct {
			Extensions []struct {
				Config struct {
					Sinks []struct {
						Name   string
						Config map[string]any `yaml:"typed_config"`
					}
				} `yaml:"typed_config"`
			} `yaml:"bootstrap_extensions"`
			Static any `yaml:"static_resources"`
		}
		if err := goyaml.Unmarshal([]byte(text), &b); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		got := b.Extensions[0].Config.Sinks
		if len(got) != 1+len(sinks) || got[0].Name != "nats" || b.Static == nil {
			t.Errorf("%+v\n%s", got, text)
		}
		if len(sinks) > 0 && (got[1].Config["text"] != "- {x}: #y" || got[2].Name != "b") {
			t.Errorf("%+v", got)
		}
	}
}
