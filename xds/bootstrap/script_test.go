// SPDX-License-Identifier: Apache-2.0

package bootstrap_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

var rewrite = flag.Bool("rewrite", false, "write what was found into the scripts of testdata")

// TestScripts loads the bootstrap of each script. A script is a txtar archive with "bootstrap.yaml" or
// "bootstrap.json", an optional "override.yaml" and "options", and "want": the configuration with its warnings, or the
// report.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(file), "testdata/"), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

func runScript(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opt := bootstrap.Options{Parsers: resourcetest.Parsers(), Version: "1.0"}
	lint := false
	var want string
	var keep []txtar.File
	for _, f := range ar.Files {
		switch f.Name {
		case "want":
			want = string(f.Data)
			continue
		case "override.yaml":
			opt.YAML = string(f.Data)
		case "options":
			lint = setOptions(t, &opt, string(f.Data))
		default:
			opt.Path = filepath.Join(dir, f.Name)
			if err := os.WriteFile(opt.Path, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		keep = append(keep, f)
	}
	got := strings.ReplaceAll(result(opt, lint), dir+string(filepath.Separator), "")
	got = strings.ReplaceAll(got, "\x00", "@") // of keys, see internal/sourcekey
	if broken := strings.Contains(file, "broken"); broken != strings.HasPrefix(got, "invalid") {
		t.Errorf("a broken bootstrap must fail and a good one must not; got:\n%s", got)
	}
	if *rewrite {
		ar.Files = append(keep, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func setOptions(t *testing.T, opt *bootstrap.Options, text string) (lint bool) {
	for _, line := range strings.Fields(text) {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "lint":
			lint = true
		case "allow-unknown":
			opt.AllowUnknownStaticFields = true
		case "accept-observational":
			opt.AcceptObservational = true
		case "node-id":
			opt.NodeID = value
		case "node-cluster":
			opt.NodeCluster = value
		case "node-zone":
			opt.NodeZone = value
		default:
			t.Fatalf("unknown option %q", line)
		}
	}
	return lint
}

// result is what a person sees of a broken bootstrap, and what the program gets of a good one.
func result(opt bootstrap.Options, lint bool) string {
	if lint {
		r := bootstrap.Validate(opt)
		if r.Errors() > 0 {
			return "invalid\n" + r.Text()
		}
		return r.Text()
	}
	c, err := bootstrap.Load(opt)
	if err != nil {
		return "invalid\n" + err.Error() + "\n"
	}
	var b strings.Builder
	_, runtime := c.Runtime.Dump()
	for _, w := range c.Warnings {
		fmt.Fprintf(&b, "%d:%d %s\n", w.Line, w.Column, w.Message)
	}
	b.WriteString(resourcetest.Dump(struct {
		Node        any
		UserAgent   string
		Admin       any
		Dynamic     any
		Connections int
		Extensions  any
		Stats       any
		Runtime     any
		RTDS        any
		Control     any
	}{
		c.Node, c.NodeProto.GetUserAgentName() + " " + c.NodeProto.GetUserAgentVersion(), c.Admin, c.Dynamic, c.Connections,
		c.Extensions, namingOf(c), runtime, c.RTDS, c.Resource.ControlPlane,
	}))
	for _, s := range append(c.Clusters, c.Listeners...) {
		fmt.Fprintf(&b, "%s %s, refs: %v %v %q\n", s.Kind, s.Name, s.Refs.RouteTables,
			s.Refs.Clusters, s.Refs.Endpoints)
	}
	return b.String()
}

// namingOf is what can be shown of how statistics are named.
func namingOf(c *bootstrap.Config) any {
	if c.Stats == nil {
		return nil
	}
	var out struct {
		NoDefaults  bool
		Fixed, Tags []string
		Matcher     bool
		Buckets     [][]float64
		Interval    time.Duration
	}
	out.NoDefaults, out.Matcher, out.Interval = c.Stats.NoDefaults, c.Stats.Keep != nil, c.StatsInterval
	for _, f := range c.Stats.Fixed {
		out.Fixed = append(out.Fixed, f.Name+"="+f.Value)
	}
	for _, r := range c.Stats.Tags {
		out.Tags = append(out.Tags, r.Name+" "+r.Regex.String())
	}
	for _, b := range c.Stats.Buckets {
		out.Buckets = append(out.Buckets, b.Bounds)
	}
	return out
}
