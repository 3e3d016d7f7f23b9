// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/internal/whatif"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

// replayFlags are the flags of "meshtap replay".
type replayFlags struct {
	cli.Output
	capture
	policy, baseline, cluster, latency string
	window                             time.Duration
	seed                               uint64
}

func newReplay() *cobra.Command {
	f := &replayFlags{}
	cmd := &cobra.Command{
		Use:   "replay CAPTURE --policy FILE",
		Short: "Run recorded requests through other settings, and compare",
		Long: `
CAPTURE is a file of the file sink, or nats://, kafka:// or amqp://. FILE is a
bootstrap, a cluster, or cluster: and route: (a RouteAction), as Envoy has them.
What a host would have answered is drawn from what it did answer at the time.`,
		Example: `  meshtap replay events.jsonl --policy new.yaml
  meshtap replay events.jsonl --policy new.yaml --baseline old.yaml
  meshtap replay events.jsonl --policy new.yaml --latency 20ms,200ms -o json`,
		Args: someArgs(1, 1, "a capture"),
	}
	f.capture.add(cmd)
	f.Output.Add(cmd, cli.Table, cli.JSON)
	s := cmd.Flags()
	s.StringVar(&f.policy, "policy", "", "`file` with the settings to try")
	s.StringVar(&f.baseline, "baseline", "", "`file` with settings to run in the same way")
	s.StringVar(&f.cluster, "cluster", "", "`name`: the cluster, where the policy has several")
	s.StringVar(&f.latency, "latency", "", "`p50,p99` of all hosts; else drawn as recorded")
	s.DurationVar(&f.window, "window", whatif.DefaultWindow, "`time`: how far from the moment to draw")
	s.Uint64Var(&f.seed, "seed", 1, "`number`: the same gives the same result")
	cmd.RunE = verb(f.run)
	return cmd
}

func (f *replayFlags) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	if f.policy == "" {
		return cli.Usage("give a file with a cluster, as in a bootstrap", "--policy is missing")
	}
	model, err := f.model()
	if err != nil {
		return err
	}
	policy, err := f.load(f.policy, f.cluster)
	if err != nil {
		return err
	}
	rec := &whatif.Recording{Cluster: policy.Cluster.Name}
	var came uint64
	var others []string
	err = f.capture.read(ctx, args[0], func(e consume.Event) error {
		came++
		if name := string(e.Texts[event.Cluster]); !rec.Add(e.Event) && e.Kind == event.Request && name != "" && len(others) < 8 && !slices.Contains(others, name) && name != rec.Cluster {
			others = append(others, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rec.Len() == 0 || len(rec.Hosts) == 0 {
		return &cli.Error{Exit: cli.ExitFailure, Msg: fmt.Sprintf("none of %s is a request that a host of the cluster %q answered", events(came), rec.Cluster),
			Hint: "requests are there of " + strings.Join(others, ", ")}
	}
	r := replay{Cluster: rec.Cluster, Requests: rec.Len(), Seed: f.seed}
	r.Columns = append(r.Columns, column{"recorded", view(rec.Recorded())})
	if f.baseline != "" {
		old, err := f.load(f.baseline, rec.Cluster)
		if err != nil {
			return err
		}
		r.Columns = append(r.Columns, column{"baseline", view(whatif.Run(rec, old, model, f.seed))})
	}
	r.Columns = append(r.Columns, column{"policy", view(whatif.Run(rec, policy, model, f.seed))})
	r.Notes = f.notes(rec, policy)
	if s.Format == cli.JSON {
		if err := s.JSON(document{"replay": r}); err != nil {
			return err
		}
	} else {
		r.print(s)
	}
	if f.unreadable > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "meshtap: %d messages of the capture are no events\n", f.unreadable)
	}
	return s.Flush()
}

// model reads --latency and --window.
func (f *replayFlags) model() (m whatif.Model, err error) {
	if f.window <= 0 {
		return m, cli.Usage("", "--window %v: a time is positive", f.window)
	}
	m.Window = f.window
	if f.latency == "" {
		return m, nil
	}
	p50, p99, ok := strings.Cut(f.latency, ",")
	if !ok {
		p99 = p50
	}
	var err1, err2 error
	m.P50, err1 = time.ParseDuration(p50)
	m.P99, err2 = time.ParseDuration(p99)
	if err1 != nil || err2 != nil || m.P50 <= 0 || m.P99 < m.P50 {
		return m, cli.Usage("write --latency 20ms,200ms, or --latency 20ms where all answers take as long", "--latency %q is not two times", f.latency)
	}
	return m, nil
}

// notes are what a reader must know of the figures.
func (f *replayFlags) notes(rec *whatif.Recording, p whatif.Policy) []string {
	times := fmt.Sprintf("answers are drawn from those that the host gave within %v; a host without any gets those of all", f.window)
	if f.latency != "" {
		times = "answers take " + f.latency + " (log-normal p50,p99); whether they fail is drawn from what the host did"
	}
	out := []string{times,
		"not known: queueing (a host with more load is not slower), how long what was cut off would have taken (it hangs), clients that give up or repeat",
		"left out: connections, active health checks, hash policies, localities, fallbacks"}
	if rec.Sampled > 0 {
		out = append(out, fmt.Sprintf("%s of the recording stand for others too: there was more traffic than is run here, and limits and circuits see less of it", events(rec.Sampled)))
	}
	if s := p.Cluster.Endpoints; p.Cluster.Discovery != mesh.Static || s == nil || len(s.Localities) == 0 {
		out = append(out, "the policy does not name its endpoints: those that were recorded are taken, with equal weights")
	}
	return out
}

// maxPolicy bounds a policy file, in bytes.
const maxPolicy = 16 << 20

// load reads a policy for a cluster; "" is the only one.
func (f *replayFlags) load(path, cluster string) (p whatif.Policy, err error) {
	ext := app.NewExtensions(io.Discard)
	opt := bootstrap.Options{Path: path, Parsers: ext.Parsers(), Version: version.Number, LookupEnv: os.LookupEnv}
	file, err := os.Open(path)
	if err != nil {
		return p, cli.Usage("", "--policy: %v", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxPolicy+1))
	file.Close()
	if err != nil || len(text) > maxPolicy {
		return p, cli.Errorf(cli.ExitFailure, "%s cannot be read, or has more than %d bytes: %v", path, maxPolicy, err)
	}
	if whole, ok, err := asBootstrap(text); err != nil {
		return p, cli.Errorf(cli.ExitConfig, "%s: %v", path, err)
	} else if ok {
		opt.Path, opt.YAML = "", whole
	}
	cfg, err := bootstrap.Load(opt)
	if err != nil {
		return p, cli.Errorf(cli.ExitConfig, "%s: %s", path, inOneLine(err))
	}
	var names []string
	for _, s := range cfg.Clusters {
		c, ok := s.Value.(*mesh.Cluster)
		if !ok {
			continue
		}
		if names = append(names, c.Name); cluster == "" || c.Name == cluster {
			p.Cluster = c
		}
	}
	if p.Cluster == nil || cluster == "" && len(names) > 1 {
		return p, cli.Usage("it has "+strings.Join(names, ", "), "%s: which cluster? name one of the file's with --cluster", path)
	}
	p.Build = registry.Builders(ext.Policies)[p.Cluster.Policy.TypeURL]
	if p.Build == nil {
		return p, cli.Errorf(cli.ExitConfig, "%s: the load balancing policy %q cannot be run here", path, p.Cluster.Policy.TypeURL)
	}
	p.Routes, p.Default = routes(cfg, p.Cluster.Name)
	return p, nil
}

// wrappedAt is where an error is in what asBootstrap made, which nobody has seen; the field's path says it as well.
var wrappedAt = regexp.MustCompile(`--config-yaml:[0-9]+:[0-9]+ +`)

func inOneLine(err error) string {
	text := wrappedAt.ReplaceAllString(strings.TrimSpace(err.Error()), "")
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n", ";")), " ")
}

// asBootstrap makes a bootstrap of a cluster, or of cluster: and route:. ok is false where the text is a bootstrap as it is.
func asBootstrap(text []byte) (whole string, ok bool, err error) {
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return "", false, nil // the bootstrap's reader says where it is wrong
	}
	if _, has := doc["static_resources"]; has || doc["staticResources"] != nil {
		return "", false, nil
	}
	cluster, has := doc["cluster"]
	route := doc["route"]
	if !has {
		cluster = doc
	}
	c, isMap := cluster.(map[string]any)
	if !isMap || c["name"] == nil {
		return "", false, errors.New("it is no bootstrap, and has no cluster with a name")
	}
	if c["type"] == "EDS" { // the endpoints are those that were recorded
		c["type"] = "STATIC"
		delete(c, "eds_cluster_config")
		delete(c, "edsClusterConfig")
	}
	static := map[string]any{"clusters": []any{c}}
	if route != nil {
		static["listeners"] = []any{listenerOf(c["name"], route)}
	}
	b, err := json.Marshal(map[string]any{"static_resources": static})
	return string(b), true, err
}

// listenerOf makes a listener with one route, whose action goes to the cluster.
func listenerOf(cluster, route any) any {
	type m = map[string]any
	if r, ok := route.(m); ok && r["cluster"] == nil {
		r["cluster"] = cluster
	}
	const types = "type.googleapis.com/envoy.extensions.filters."
	return m{"name": "policy", "address": m{"socket_address": m{"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": []any{m{"filters": []any{m{"name": "envoy.filters.network.http_connection_manager", "typed_config": m{
			"@type": types + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "policy",
			"http_filters": []any{m{"name": "envoy.filters.http.router", "typed_config": m{"@type": types + "http.router.v3.Router"}}},
			"route_config": m{"name": "policy", "virtual_hosts": []any{m{"name": "policy", "domains": []any{"*"},
				"routes": []any{m{"match": m{"prefix": "/"}, "route": route}}}}}}}}}}}
}

// routes returns what the routes to a cluster say, by their names, and what the first one says.
func routes(cfg *bootstrap.Config, cluster string) (map[string]whatif.Route, whatif.Route) {
	const defaultTimeout = 15 * time.Second // a RouteAction's
	named, first, found := map[string]whatif.Route{}, whatif.Route{Timeout: defaultTimeout}, false
	for _, s := range cfg.Listeners {
		l, ok := s.Value.(*mesh.Listener)
		if !ok {
			continue
		}
		for _, r := range routesOf(l) {
			if r.Forward == nil || !slices.ContainsFunc(r.Forward.Clusters, func(w mesh.WeightedCluster) bool { return w.Name == cluster }) {
				continue
			}
			w := whatif.Route{Timeout: r.Forward.Timeout, Retry: r.Forward.Retry}
			if w.Retry == nil {
				w.Retry = r.retry
			}
			if !found {
				first, found = w, true
			}
			if r.Name != "" {
				named[r.Name] = w
			}
		}
	}
	return named, first
}

// hosted is a route with the retries of its virtual host.
type hosted struct {
	*mesh.Route
	retry *mesh.RetryPolicy
}

// routesOf returns the routes that stand in a listener itself.
func routesOf(l *mesh.Listener) (out []hosted) {
	for _, c := range append(slices.Clone(l.Chains), l.DefaultChain) {
		if c == nil || c.HTTP == nil || c.HTTP.Routes == nil {
			continue
		}
		for _, h := range c.HTTP.Routes.Hosts {
			for _, r := range h.Routes {
				out = append(out, hosted{r, h.Retry})
			}
		}
	}
	return out
}
