// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"slices"
	"strings"
)

// route makes the table of endpoints: those whose views are there.
func (s *Server) route() {
	s.routes = map[string]*endpoint{}
	for _, e := range slices.Concat(s.reading(), s.changing(), s.ownEndpoints()) {
		s.routes[e.path] = e
	}
	s.routes["/"] = &endpoint{path: "/", help: "Admin home page", serve: s.home}
	s.routes["/help"] = &endpoint{path: "/help", help: "print out list of admin commands", serve: s.showHelp}
	s.help = s.listHelp()
}

// when returns the endpoint if its view is there.
func when(there bool, e *endpoint) []*endpoint {
	if !there {
		return nil
	}
	return []*endpoint{e}
}

var (
	paramFormat  = choice("format", "File format to use", "text", "json")
	paramFilter  = field("filter", "Regular expression (RE2) for filtering stats")
	paramInvert  = flag("invert_filter", "Invert the filter regex")
	paramUsed    = flag("usedonly", "Only include stats that have been written by system since restart")
	paramBuckets = choice("histogram_buckets", "Histogram bucket display mode", "cumulative", "disjoint", "detailed", "summary")
	paramTexts   = flag("text_readouts", "Render text_readouts as new gaugues with value 0 (increases Prometheus data size)")
	paramGo      = flag("go", "Add the Go runtime's and the process' own metrics")
)

// reading are Envoy's endpoints that change nothing.
func (s *Server) reading() []*endpoint {
	v := &s.views
	return slices.Concat(
		when(v.Ready != nil, &endpoint{path: "/ready", help: "print server state, return 200 if LIVE, otherwise return 503", serve: s.ready}),
		when(v.ServerInfo != nil, &endpoint{path: "/server_info", help: "print server version/status information", serve: s.serverInfo}),
		when(true, &endpoint{path: "/stats", help: "print server stats", places: s.dumps, serve: s.stats,
			params: []param{paramUsed, paramFilter, paramInvert,
				choice("format", "Format to use", "html", "text", "json", "prometheus"),
				choice("type", "Stat types to include.", "All", "Counters", "Histograms", "Gauges", "TextReadouts"), paramBuckets,
				choice("hidden", "Whether to include hidden stats, of which there are none", "include", "only", "exclude"), paramTexts, paramGo}}),
		when(true, &endpoint{path: "/stats/prometheus", help: "print server stats in prometheus format", places: s.dumps, serve: s.prometheus,
			params: []param{paramUsed, paramTexts, paramFilter, paramInvert,
				choice("histogram_buckets", "Histogram bucket display mode", "cumulative", "summary"), paramGo}}),
		when(v.Clusters != nil, &endpoint{path: "/clusters", help: "upstream cluster status", places: s.dumps, serve: s.clusters,
			params: []param{field("filter", "Regular expression (RE2) for filtering clusters by name"), paramFormat}}),
		when(v.Listeners != nil, &endpoint{path: "/listeners", help: "print listener info", serve: s.listeners, params: []param{paramFormat}}),
		when(v.ConfigDump != nil, &endpoint{path: "/config_dump", help: "dump current Envoy configs", places: s.dumps, serve: s.configDump,
			params: []param{field("resource", "The resource to dump"), field("mask", "The mask to apply, a field mask"),
				field("name_regex", "Dump only the configurations whose names match the regex"), flag("include_eds", "Dump endpoints as well")}}),
		when(v.InitDump != nil, &endpoint{path: "/init_dump", help: "dump current Envoy init manager information (experimental)", serve: s.initDump,
			params: []param{field("mask", "The component whose unready targets are dumped, such as listener")}}),
		when(v.Runtime != nil, &endpoint{path: "/runtime", help: "print runtime values", serve: s.runtime}),
		when(true, &endpoint{path: "/certs", help: "print certs on machine", serve: s.certs}),
		when(true, &endpoint{path: "/memory", help: "print current allocation/heap usage", serve: s.memory}),
		when(true, &endpoint{path: "/hot_restart_version", help: "print the hot restart compatibility version", serve: s.hotRestartVersion}),
	)
}

// changing are Envoy's endpoints that change something.
func (s *Server) changing() []*endpoint {
	v := &s.views
	all := slices.Concat(
		when(v.Loggers != nil && v.SetLogger != nil, &endpoint{path: "/logging", help: "query/change logging levels", serve: s.logging,
			params: []param{field("paths", "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>"),
				choice("level", "desired logging level, this will change all loggers's level", append([]string{""}, Levels[:]...)...)}}),
		when(true, &endpoint{path: "/reset_counters", help: "reset all counters to zero", serve: s.resetCounters}),
		when(v.DrainListeners != nil, &endpoint{path: "/drain_listeners", help: "drain listeners", serve: s.drainListeners,
			params: []param{flag("graceful", "When draining listeners, enter a graceful drain period prior to closing listeners"),
				flag("skip_exit", "When draining listeners, drain the connections but never stop the listeners"),
				flag("inboundonly", "Drains all inbound listeners, as their traffic_direction says")}}),
		when(v.HealthCheck != nil, &endpoint{path: "/healthcheck/fail", help: "cause the server to fail health checks", serve: s.failHealthCheck(true)}),
		when(v.HealthCheck != nil, &endpoint{path: "/healthcheck/ok", help: "cause the server to pass health checks", serve: s.failHealthCheck(false)}),
		when(v.ReopenLogs != nil, &endpoint{path: "/reopen_logs", help: "reopen access logs", serve: s.reopenLogs}),
		when(v.ModifyRuntime != nil, &endpoint{path: "/runtime_modify", serve: s.modifyRuntime,
			help: "add or modify runtime values of the admin layer, as key=value; an empty value removes what was added here"}),
		when(v.Quit != nil, &endpoint{path: "/quitquitquit", help: "exit the server", serve: s.quit}),
	)
	for _, e := range all {
		e.changes = true
	}
	return all
}

// ownEndpoints are Meshtap's own.
func (s *Server) ownEndpoints() []*endpoint {
	v := &s.views
	return slices.Concat(
		when(v.Events != nil, &endpoint{path: "/events", help: "follow outcomes and notices", places: s.streams, serve: s.events,
			params: []param{choice("format", "sse is the default for clients that accept text/event-stream", "ndjson", "sse")}}),
		when(v.Circuits != nil, &endpoint{path: "/circuits", help: "print the states of circuit breakers", serve: s.circuits}),
		when(v.History != nil, &endpoint{path: "/config_history", help: "print the configurations that were in force, newest first", serve: s.history}),
		when(v.Coverage != nil, &endpoint{path: "/config_coverage", help: "print the fields in force that change nothing here", serve: s.coverage}),
		when(v.Rollback != nil, &endpoint{path: "/config_rollback", help: "go back to an older configuration and hold it", changes: true, serve: s.rollback,
			params: []param{field("version", "The number of a snapshot of /config_history, or a version_info that it had")}}),
		when(v.Release != nil, &endpoint{path: "/config_release", help: "end /config_rollback", changes: true, serve: s.release}),
		when(v.XDS != nil, &endpoint{path: "/xds", help: "print how the proxy stands with its control plane", serve: s.xds}),
		when(true, &endpoint{path: "/profile", help: "take a profile, in the form of pprof, if started with --enable-profiles", places: s.profiles, serve: s.profile,
			params: []param{choice("kind", "What to take", "cpu", "heap", "goroutine"),
				field("seconds", "How long to take a cpu profile, from 1 to 120; 10 is the default")}}),
	)
}

// sorted returns the endpoints by path.
func (s *Server) sorted() []*endpoint {
	var out []*endpoint
	for _, e := range s.routes {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *endpoint) int { return strings.Compare(a.path, b.path) })
	return out
}

// listHelp makes the text of /help, in Envoy's form.
func (s *Server) listHelp() string {
	var b strings.Builder
	b.WriteString("admin commands are:\n")
	for _, e := range s.sorted() {
		post := ""
		if e.changes {
			post = " (POST)"
		}
		b.WriteString("  " + e.path + post + ": " + e.help + "\n")
		for _, p := range e.params {
			b.WriteString("      " + p.name + ": " + p.text() + "\n")
		}
	}
	return b.String()
}

func (s *Server) showHelp(*request) (*answer, error) { return text(http.StatusOK, s.help), nil }
