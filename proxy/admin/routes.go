// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"html"
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
	paramFormat  = param{"format", "File format to use; One of (text, json)"}
	paramFilter  = param{"filter", "Regular expression (RE2) for filtering stats"}
	paramInvert  = param{"invert_filter", "Invert the filter regex"}
	paramUsed    = param{"usedonly", "Only include stats that have been written by system since restart"}
	paramBuckets = param{"histogram_buckets", "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)"}
)

// reading are Envoy's endpoints that change nothing.
func (s *Server) reading() []*endpoint {
	v := &s.views
	return slices.Concat(
		when(v.Ready != nil, &endpoint{path: "/ready", help: "print server state, return 200 if LIVE, otherwise return 503", serve: s.ready}),
		when(v.ServerInfo != nil, &endpoint{path: "/server_info", help: "print server version/status information", serve: s.serverInfo}),
		when(true, &endpoint{path: "/stats", help: "print server stats", places: s.dumps, serve: s.stats,
			params: []param{paramUsed, paramFilter, paramInvert,
				{"format", "Format to use; One of (text, json, prometheus)"},
				{"type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"}, paramBuckets,
				{"hidden", "Whether to include hidden stats, of which there are none; One of (include, only, exclude)"}}}),
		when(true, &endpoint{path: "/stats/prometheus", help: "print server stats in prometheus format", places: s.dumps, serve: s.prometheus,
			params: []param{paramUsed, {"text_readouts", "Render text_readouts as new gaugues with value 0 (increases Prometheus data size)"},
				paramFilter, paramInvert, {"histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"},
				{"go", "Add the Go runtime's and the process' own metrics"}}}),
		when(v.Clusters != nil, &endpoint{path: "/clusters", help: "upstream cluster status", places: s.dumps, serve: s.clusters,
			params: []param{{"filter", "Regular expression (RE2) for filtering clusters by name"}, paramFormat}}),
		when(v.Listeners != nil, &endpoint{path: "/listeners", help: "print listener info", serve: s.listeners, params: []param{paramFormat}}),
		when(v.ConfigDump != nil, &endpoint{path: "/config_dump", help: "dump current Envoy configs", places: s.dumps, serve: s.configDump,
			params: []param{{"resource", "The resource to dump"}, {"mask", "The mask to apply, a field mask"},
				{"name_regex", "Dump only the configurations whose names match the regex"}, {"include_eds", "Dump endpoints as well"}}}),
		when(v.InitDump != nil, &endpoint{path: "/init_dump", help: "dump current Envoy init manager information (experimental)", serve: s.initDump,
			params: []param{{"mask", "The component whose unready targets are dumped, such as listener"}}}),
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
			params: []param{{"paths", "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>"},
				{"level", "desired logging level, this will change all loggers's level; One of (, " + strings.Join(Levels[:], ", ") + ")"}}}),
		when(true, &endpoint{path: "/reset_counters", help: "reset all counters to zero", serve: s.resetCounters}),
		when(v.DrainListeners != nil, &endpoint{path: "/drain_listeners", help: "drain listeners", serve: s.drainListeners,
			params: []param{{"graceful", "When draining listeners, enter a graceful drain period prior to closing listeners"},
				{"skip_exit", "When draining listeners, drain the connections but never stop the listeners"},
				{"inboundonly", "Drains all inbound listeners, as their traffic_direction says"}}}),
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
			params: []param{{"format", "One of (ndjson, sse); sse is the default for clients that accept text/event-stream"}}}),
		when(v.Circuits != nil, &endpoint{path: "/circuits", help: "print the states of circuit breakers", serve: s.circuits}),
		when(v.History != nil, &endpoint{path: "/config_history", help: "print the configurations that were in force, newest first", serve: s.history}),
		when(v.Rollback != nil, &endpoint{path: "/config_rollback", help: "go back to an older configuration and hold it", changes: true, serve: s.rollback,
			params: []param{{"version", "The number of a snapshot of /config_history, or a version_info that it had"}}}),
		when(v.Release != nil, &endpoint{path: "/config_release", help: "end /config_rollback", changes: true, serve: s.release}),
		when(v.XDS != nil, &endpoint{path: "/xds", help: "print how the proxy stands with its control plane", serve: s.xds}),
		when(true, &endpoint{path: "/profile", help: "take a profile, in the form of pprof", places: s.profiles, serve: s.profile,
			params: []param{{"kind", "One of (cpu, heap, goroutine); cpu is the default"},
				{"seconds", "How long to take a cpu profile, from 1 to 120; 10 is the default"}}}),
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
			b.WriteString("      " + p.name + ": " + p.help + "\n")
		}
	}
	return b.String()
}

func (s *Server) showHelp(*request) (*answer, error) { return text(http.StatusOK, s.help), nil }

// home is the only HTML: the same list, with links to what can be read. It has no scripts, styles or forms, so that the
// strictest policy fits.
func (s *Server) home(*request) (*answer, error) {
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Meshtap admin</title></head><body>\n<h1>Meshtap admin</h1>\n<table>\n")
	for _, e := range s.sorted() {
		name := html.EscapeString(e.path)
		if !e.changes {
			name = `<a href="` + name + `">` + name + `</a>`
		} else {
			name += " (POST)"
		}
		b.WriteString("<tr><td>" + name + "</td><td>" + html.EscapeString(e.help) + "</td></tr>\n")
	}
	b.WriteString("</table>\n</body></html>\n")
	return &answer{status: http.StatusOK, contentType: typeHTML, body: []byte(b.String())}, nil
}
