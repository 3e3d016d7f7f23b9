// SPDX-License-Identifier: Apache-2.0

package main

// The kinds of words.
const (
	kindFlag    = "flag"
	kindFailure = "failure"
	kindCircuit = "circuit"
	kindOutlier = "outlier"
	kindEvent   = "event"
	kindConfig  = "config"
)

// notYet ends the explanation of a flag that Envoy has and this version never sets, so that nobody looks for it in vain.
const notYet = " This version of Meshtap never sets it: what would is not built yet."

// flagWords are the response flags, in the order of mesh.Flags. Causes and meanings follow Envoy's "Access logging",
// %RESPONSE_FLAGS%.
var flagWords = []explanation{
	{Name: "UH", Long: "NoHealthyUpstream", Kind: kindFlag, Status: 503, Also: []string{"no_healthy_host"},
		Cause: "No host of the cluster could be picked: it has none, all are unhealthy or ejected, or the rules of load balancing leave none over.",
		Next:  "meshtap tap --type health,ejection shows why hosts went; meshtap status shows whether endpoints came (EDS). Look at the cluster in /clusters of the administration server."},
	{Name: "UF", Long: "UpstreamConnectionFailure", Kind: kindFlag, Status: 503, Also: []string{"connect_failure", "connect_timeout"},
		Cause: "No connection to the upstream host could be made: it refused it, could not be reached, or did not answer within connect_timeout.",
		Next:  "Is the service running and listening on the host and port that the event names? With connect_timeout: is a firewall between, or the host overloaded? A retry policy with connect-failure hides single cases."},
	{Name: "UO", Long: "UpstreamOverflow", Kind: kindFlag, Status: 503, Also: []string{"overflow", "circuit_open", "maintenance_mode"},
		Cause: "The request was not sent. Either a limit of the cluster (circuit_breakers.thresholds: connections, pending requests, requests, retries) was reached, its circuit is open because too much failed before, or the runtime says that it is in maintenance (upstream.maintenance_mode); the error says which: overflow, circuit_open or maintenance_mode.",
		Next:  "meshtap circuits shows open circuits and why they opened. For overflow, look which limit is reached in cluster.NAME.circuit_breakers.* of /stats, and raise it or slow the caller down."},
	{Name: "NR", Long: "NoRouteFound", Kind: kindFlag, Status: 404, Also: []string{"no_route"},
		Cause: "No route, or for a connection no filter chain, matched the request's host and path.",
		Next:  "Compare the Host header with the domains of the virtual hosts, and the path with their routes, in /config_dump?resource=dynamic_route_configs. meshtap status shows whether the routes came (RDS)."},
	{Name: "URX", Long: "UpstreamRetryLimitExceeded", Kind: kindFlag,
		Cause: "The request was tried as often as its retry policy allows, and the last try failed as well. For TCP: max_connect_attempts was reached.",
		Next:  "The lines below the request show each try. The cause is in the tries: explain their failures; more retries mostly add load."},
	{Name: "NC", Long: "NoClusterFound", Kind: kindFlag, Status: 503, Also: []string{"no_cluster"},
		Cause: "The route names a cluster that does not exist here.",
		Next:  "meshtap status shows whether clusters came (CDS), and which were refused. Compare the name in the route with /clusters."},
	{Name: "DT", Long: "DurationTimeout", Kind: kindFlag,
		Cause: "A TCP connection was ended because it had lasted as long as it may (max_downstream_connection_duration).",
		Next:  "Raise the limit for connections that are meant to be long, or let the client connect anew."},
	{Name: "DC", Long: "DownstreamConnectionTermination", Kind: kindFlag, Also: []string{"downstream_closed"},
		Cause: "The client closed the connection, or reset the request, before its answer was whole. Nobody got a status.",
		Next:  "Is the client's timeout shorter than the request takes? Compare TOOK with it; meshtap tap --flags DC --slow 1s shows those that waited long."},
	{Name: "LH", Long: "FailedLocalHealthCheck", Kind: kindFlag, Status: 503,
		Cause: "The local service failed the health check of the health check filter." + notYet,
		Next:  "Ask the local service's own health endpoint."},
	{Name: "UT", Long: "UpstreamRequestTimeout", Kind: kindFlag, Status: 504, Also: []string{"request_timeout", "per_try_timeout"},
		Cause: "The answer did not come in time: within the route's timeout (15 s where none is set), or within per_try_timeout; the error says which.",
		Next:  "meshtap tap --to SERVICE --slow 1s shows how long requests take, meshtap stat the P99. Make the service faster, or raise the route's timeout."},
	{Name: "LR", Long: "LocalReset", Kind: kindFlag, Status: 503, Also: []string{"local_reset"},
		Cause: "The proxy itself reset the connection to the upstream, for example because the cluster was removed.",
		Next:  "meshtap tap --type config,lifecycle shows what changed at that time."},
	{Name: "UR", Long: "UpstreamRemoteReset", Kind: kindFlag, Status: 503, Also: []string{"upstream_reset"},
		Cause: "The upstream reset the request's stream or connection before its answer was whole.",
		Next:  "Look into the log of the service at that time: a crash, a limit of its own, a restart. A retry policy with reset hides single cases."},
	{Name: "UC", Long: "UpstreamConnectionTermination", Kind: kindFlag, Status: 503, Also: []string{"upstream_closed"},
		Cause: "The upstream closed the connection before its answer was whole. Often it closed an idle connection at the moment it was used.",
		Next:  "Set the cluster's idle_timeout below the keep-alive time of the service, or a retry policy with reset-before-request. If it happens under load: does the service crash?"},
	{Name: "DI", Long: "DelayInjected", Kind: kindFlag,
		Cause: "The fault filter delayed the request on purpose.",
		Next:  "Look who switched the fault on; meshtap fault ls shows those of the demo."},
	{Name: "FI", Long: "FaultInjected", Kind: kindFlag,
		Cause: "The fault filter answered with an error on purpose.",
		Next:  "Look who switched the fault on; meshtap fault ls shows those of the demo."},
	{Name: "RL", Long: "RateLimited", Kind: kindFlag, Status: 429,
		Cause: "A rate limit refused the request." + notYet,
		Next:  "Slow the caller down, or raise the limit."},
	{Name: "UAEX", Long: "UnauthorizedExternalService", Kind: kindFlag, Status: 403,
		Cause: "The external authorization service refused the request." + notYet,
		Next:  "Ask that service why."},
	{Name: "RLSE", Long: "RateLimitServiceError", Kind: kindFlag,
		Cause: "The rate limit service failed, and the filter refuses requests in this case." + notYet,
		Next:  "Look at the rate limit service; failure_mode_deny decides what happens without it."},
	{Name: "IH", Long: "InvalidEnvoyRequestHeaders", Kind: kindFlag, Status: 400,
		Cause: "An x-envoy-* header of the request has a value that cannot be, and the router is strict about it." + notYet,
		Next:  "Correct the header in the client."},
	{Name: "SI", Long: "StreamIdleTimeout", Kind: kindFlag, Status: 504, Also: []string{"stream_idle_timeout"},
		Cause: "Nothing moved on the request for as long as stream_idle_timeout or the route's idle_timeout allows (5 minutes where none is set).",
		Next:  "For streams that pause on purpose, raise the route's idle_timeout or set it to 0. Else look which side stopped: the event's timings show how far it came."},
	{Name: "DPE", Long: "DownstreamProtocolError", Kind: kindFlag, Status: 400, Also: []string{"downstream_protocol_error"},
		Cause: "The client broke its protocol: a malformed head, two lengths that contradict each other, a header that is too large.",
		Next:  "meshtap tap --flags DPE -o wide shows the listener and the details. Is something other than HTTP sent to this port, such as TLS?"},
	{Name: "UPE", Long: "UpstreamProtocolError", Kind: kindFlag, Status: 502, Also: []string{"upstream_protocol_error"},
		Cause: "The upstream's answer was not what its protocol allows.",
		Next:  "Does the service speak the protocol that the cluster says (HTTP/1.1 or HTTP/2, with or without TLS)? Ask it directly with curl -v."},
	{Name: "UMSDR", Long: "UpstreamMaxStreamDurationReached", Kind: kindFlag, Status: 504, Also: []string{"max_duration"},
		Cause: "The request lasted longer than max_stream_duration allows.",
		Next:  "Raise max_stream_duration of the route or the cluster for requests that are meant to be long, such as streams."},
	{Name: "NFCF", Long: "NoFilterConfigFound", Kind: kindFlag, Status: 500,
		Cause: "The configuration of a filter, which was to come by itself (ECDS), did not come in time.",
		Next:  "meshtap status shows what the proxy waits for."},
	{Name: "OM", Long: "OverloadManagerTerminated", Kind: kindFlag, Status: 503, Also: []string{"overloaded"},
		Cause: "The proxy has as many connections as it may have, on this listener or in all, and refused this one.",
		Next:  "Look at downstream_cx_overflow and downstream_global_cx_overflow of the listener in /stats. Raise the limit, or find out who holds so many connections."},
	{Name: "DF", Long: "DnsResolutionFailed", Kind: kindFlag, Status: 503,
		Cause: "The name of the upstream could not be resolved for this request." + notYet,
		Next:  "Ask the name server on the proxy's host for the name."},
	{Name: "DO", Long: "DropOverload", Kind: kindFlag, Status: 503,
		Cause: "The control plane asked to drop a share of the requests (drop_overloads)." + notYet,
		Next:  "Look at the cluster's drop_overloads in the endpoints that the control plane sends."},
}
