// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/resource"
)

func newDiff() *cobra.Command {
	var t cli.Targets
	cmd := &cobra.Command{
		Use:   "diff [FILE]",
		Short: "Show what was sent, or a file has, and is not in force",
		Long: `
Without FILE: what was sent and is held back or refused, and why. With FILE,
of resources as path_config_source takes it: what it has otherwise. Secrets
are not compared. Exit code 5 says that there are differences.`,
		Example: `  meshtap config diff
  meshtap config diff clusters.yaml`,
		Args: someArgs(0, 1, "one file at most"),
	}
	t.Add(cmd)
	cmd.RunE = verb(func(ctx context.Context, cmd *cobra.Command, args []string) error { return diff(ctx, cmd, &t, args) })
	return cmd
}

func diff(ctx context.Context, cmd *cobra.Command, t *cli.Targets, args []string) error {
	proxies, err := t.Proxies()
	if err != nil {
		return err
	}
	var file shownResources
	if len(args) == 1 {
		if file, err = readResources(args[0]); err != nil {
			return err
		}
	}
	answers := cli.Ask(ctx, proxies, askResources)
	failed := cli.Failed(cmd.ErrOrStderr(), answers)
	differ := false
	for i, a := range answers {
		if a.Err != nil {
			continue
		}
		text := a.Value.pending()
		if file != nil {
			text = file.against(a.Value, args[0])
		}
		if text == "" {
			continue
		}
		differ = true
		if len(answers) > 1 {
			fmt.Fprintf(cmd.OutOrStdout(), "proxy %s\n", cli.Clean(proxies[i].Label()))
		}
		for line := range strings.Lines(text) {
			fmt.Fprintln(cmd.OutOrStdout(), cli.Clean(strings.TrimSuffix(line, "\n")))
		}
	}
	if failed == nil && differ {
		return cli.Quiet(cli.ExitProblems)
	}
	return failed
}

// shownResources are the resources of a dump, by kind and name.
type shownResources map[string]*shownResource

// shownResource is one of them: what is in force, what is held back, and what was refused, each as lines of JSON.
type shownResource struct {
	live, next, refused       []string
	liveAs, nextAs, refusedAs string
	why                       string
}

// dumpLists are the lists of a dump, with the kind of what is in them and the field that holds it.
var dumpLists = []struct{ list, kind, field string }{
	{"static_clusters", "cluster", "cluster"},
	{"dynamic_active_clusters", "cluster", "cluster"},
	{"dynamic_warming_clusters", "cluster", "cluster"},
	{"static_listeners", "listener", "listener"},
	{"dynamic_listeners", "listener", "listener"},
	{"dynamic_route_configs", "route_configuration", "route_config"},
	{"dynamic_endpoint_configs", "endpoints", "endpoint_config"},
}

func askResources(ctx context.Context, a *cli.Admin) (shownResources, error) {
	if _, err := nameProxy(ctx, a); err != nil {
		return nil, err
	}
	var answer struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := a.JSON(ctx, "/config_dump?include_eds", &answer); err != nil {
		return nil, err
	}
	return readDump(answer.Configs), nil
}

func readDump(parts []map[string]any) shownResources {
	out := shownResources{}
	for _, part := range parts {
		for _, l := range dumpLists {
			items, _ := part[l.list].([]any)
			for _, item := range items {
				if m, ok := item.(map[string]any); ok {
					out.item(l.kind, l.field, m, strings.HasPrefix(l.list, "dynamic_warming"))
				}
			}
		}
	}
	return out
}

// item adds one item of a list.
func (s shownResources) item(kind, field string, m map[string]any, warming bool) {
	live, held := m, map[string]any(nil)
	if warming {
		live, held = nil, m
	}
	if active, ok := m["active_state"]; ok || m["warming_state"] != nil || kind == "listener" && m[field] == nil {
		live, _ = active.(map[string]any)
		held, _ = m["warming_state"].(map[string]any)
	}
	failed, _ := m["error_state"].(map[string]any)
	name := cmp.Or(nameOf(live[field]), nameOf(held[field]), nameOf(failed["failed_configuration"]), text(m["name"]))
	key := kind + " " + fmt.Sprintf("%q", name)
	r := s[key]
	if r == nil {
		r = &shownResource{}
		s[key] = r
	}
	if v, ok := live[field]; ok {
		r.live, r.liveAs = lines(v), text(live["version_info"])
	}
	if v, ok := held[field]; ok {
		r.next, r.nextAs = lines(v), text(held["version_info"])
	}
	if failed != nil {
		r.refused, r.refusedAs, r.why = lines(failed["failed_configuration"]), text(failed["version_info"]), text(failed["details"])
	}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func nameOf(v any) string {
	m, _ := v.(map[string]any)
	return cmp.Or(text(m["name"]), text(m["cluster_name"]))
}

// maskID is what tells two hidden secrets apart: by process, so that it cannot be compared.
var maskID = regexp.MustCompile(`\[redacted len=(\d+) id=[0-9a-f]+\]`)

// lines writes a value as JSON with sorted keys.
func lines(v any) []string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil || v == nil {
		return nil
	}
	return strings.Split(maskID.ReplaceAllString(string(b), "[redacted]"), "\n")
}

// pending says what was sent and is not in force.
func (s shownResources) pending() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s)) {
		r := s[key]
		if r.next != nil {
			fmt.Fprintf(&b, "%s: version %q is accepted and held back; in force is %s\n", key, r.nextAs, inForce(r))
			writeDiff(&b, r.live, r.next)
		}
		if r.why != "" || r.refused != nil {
			fmt.Fprintf(&b, "%s: version %q was refused; in force is %s\n  %s\n", key, r.refusedAs, inForce(r), r.why)
			writeDiff(&b, r.live, r.refused)
		}
	}
	return b.String()
}

func inForce(r *shownResource) string {
	if r.live == nil {
		return "nothing"
	}
	return fmt.Sprintf("version %q", r.liveAs)
}

// against says what a file has otherwise than what is in force. What is in force and not in the file is named where the file has
// something of its kind.
func (s shownResources) against(live shownResources, file string) string {
	kinds := map[string]bool{}
	for key := range s {
		kind, _, _ := strings.Cut(key, " ")
		kinds[kind] = true
	}
	all := maps.Clone(s)
	maps.Copy(all, live)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		kind, _, _ := strings.Cut(key, " ")
		want, have := s[key], live[key]
		switch {
		case !kinds[kind] || have != nil && have.live == nil && want == nil:
		case want == nil:
			fmt.Fprintf(&b, "%s: in force (%s), not in %s\n", key, inForce(have), file)
		case have == nil || have.live == nil:
			fmt.Fprintf(&b, "%s: in %s, not in force\n", key, file)
		case !slices.Equal(have.live, want.live):
			fmt.Fprintf(&b, "%s: in force (%s) otherwise than in %s\n", key, inForce(have), file)
			writeDiff(&b, have.live, want.live)
		}
	}
	return b.String()
}

// readResources reads a file of resources in the form in which a proxy shows them.
func readResources(file string) (shownResources, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r, err := bootstrap.ReadResponse(file, b, false)
	if err != nil {
		return nil, err
	}
	var in dump.Input
	lists := map[string]*[]dump.Entry{resource.ClusterType: &in.Clusters, resource.ListenerType: &in.Listeners, resource.RouteType: &in.Routes}
	for _, a := range r.Message.GetResources() {
		list := lists[a.GetTypeUrl()]
		if list == nil {
			return nil, cli.Errorf(cli.ExitConfig, "%s: %s is not compared; clusters, listeners and route configurations are", file, a.GetTypeUrl())
		}
		*list = append(*list, dump.Entry{Name: resource.Name(a.GetValue()), Live: &dump.Resource{Raw: a.GetValue()}})
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	shown, err := dump.Render(in, dump.Options{Redactor: dump.NewRedactor(key)})
	if err != nil {
		return nil, err
	}
	var doc struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := json.Unmarshal(shown, &doc); err != nil {
		return nil, err
	}
	return readDump(doc.Configs), nil
}
