// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/url"
	"regexp"
	"time"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/mesh"
)

// Views are what the server shows and does, handed in by app. They are called from any goroutine, several at a time, and
// must not block for long; those that return a function may take longer in it. An endpoint whose view is nil does not
// exist. A view that fails returns an *Error to choose the answer; any other error is answered with 500 and logged.
type Views struct {
	// Ready is for /ready. While the state is not Live, waiting says in words what for; when it is, what there is to know.
	Ready func() (state State, waiting []string)
	// ServerInfo is for /server_info.
	ServerInfo func() *ServerInfo
	// Clusters is for /clusters, Listeners for /listeners. A *Cluster is not used after the yield that it was passed to.
	Clusters  func() iter.Seq[*Cluster]
	Listeners func() []Listener
	// ConfigDump is for /config_dump: it checks the query and returns what writes the JSON.
	ConfigDump func(DumpQuery) (func(io.Writer) error, error)
	// InitDump is for /init_dump: what initialization waits for.
	InitDump func() []Unready
	// Certificates is for /certs.
	Certificates func() []certs.Use
	// Runtime is for /runtime.
	Runtime func() *Runtime
	// ModifyRuntime is for /runtime_modify: it sets values of the administration layer; "" takes one away.
	ModifyRuntime func(map[string]string) error

	// Loggers and SetLogger are for /logging. The level is one of Levels; SetLogger is called with names that Loggers
	// returned.
	Loggers   func() []Logger
	SetLogger func(name, level string)
	// DrainListeners begins a drain and returns.
	DrainListeners func(DrainOptions) error
	// HealthCheck makes Ready say that the proxy drains (fail), or takes that back.
	HealthCheck func(fail bool)
	// ReopenLogs closes and opens access logs.
	ReopenLogs func() error
	// Quit asks the process to end and returns.
	Quit func()

	// Events is for /events: it checks the query and returns what writes events until ctx is done. Each Write is one event
	// as one line of JSON.
	Events func(url.Values) (func(ctx context.Context, w io.Writer) error, error)
	// History is for /config_history, newest first. Rollback goes back to the snapshot that version names, and Release to the
	// newest one.
	History  func() ([]Past, error)
	Rollback func(version string) error
	Release  func() error
	// Circuits is for /circuits, XDS for /xds, Coverage for /config_coverage.
	Circuits func() []Circuit
	XDS      func() *XDS
	Coverage func() (*Coverage, error)
}

// Error is an answer other than 200.
type Error struct {
	Status int
	// Msg is the body. It talks to a person.
	Msg string
}

// Error returns the message.
func (e *Error) Error() string { return e.Msg }

func badRequest(format string, args ...any) *Error { return &Error{400, fmt.Sprintf(format, args...)} }

// State is the state of the server, with Envoy's numbers.
type State uint8

// The states.
const (
	Live State = iota
	Draining
	PreInitializing
	Initializing
)

// String returns the state as /ready prints it.
func (s State) String() string {
	return [...]string{"LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"}[s]
}

// DumpQuery is what /config_dump is asked for. The view refuses what it does not support with an *Error that names it.
type DumpQuery struct {
	// Resource is a field of the dump, such as "dynamic_active_clusters"; Mask a field mask. "" is all.
	Resource, Mask string
	// Name matches the names of the resources; nil is all.
	Name *regexp.Regexp
	// EDS includes endpoints.
	EDS bool
}

// DrainOptions say how listeners drain.
type DrainOptions struct {
	// InboundOnly drains listeners of inbound traffic only.
	InboundOnly bool
	// Graceful gives connections the drain time before the listeners close; SkipExit never closes them.
	Graceful, SkipExit bool
}

// Logger is a component's log level.
type Logger struct{ Name, Level string }

// Levels are the log levels that /logging knows, from the most to the least.
var Levels = [...]string{"trace", "debug", "info", "warning", "error", "critical", "off"}

// Cluster is one cluster of /clusters.
type Cluster struct {
	Name string
	// StatName is its name in metrics.
	StatName    string
	AddedViaAPI bool
	// Limits are those of both priorities.
	Limits [2]mesh.Limits
	// Outlier says that outlier detection is on.
	Outlier bool
	Hosts   []Host
}

// Host is one host of a cluster.
type Host struct {
	Address  mesh.Address
	Hostname string
	// Counters and gauges of the host.
	CxTotal, CxConnectFail, RqTotal, RqSuccess, RqError, RqTimeout uint64
	CxActive, RqActive, RqPendingActive                            int64
	// Discovered is the health as discovery knows it. FailedCheck says that active checks fail, Ejected that outlier
	// detection ejected the host.
	Discovered           mesh.HealthStatus
	FailedCheck, Ejected bool
	Weight, Priority     uint32
	Locality             mesh.Locality
	Canary               bool
}

// Listener is one listener of /listeners: the addresses it is bound to.
type Listener struct {
	Name      string
	Addresses []mesh.Address
}

// Unready is a part of the server that is not initialized, and what it waits for.
type Unready struct {
	Name    string   `json:"name"`
	Targets []string `json:"target_names"`
}

// Runtime is the runtime values in force, by layer.
type Runtime struct {
	Layers  []string                `json:"layers"`
	Entries map[string]RuntimeEntry `json:"entries"`
	// WithoutEffect are keys of Envoy's own that mean nothing here, Unread those that nothing has named so far. Envoy does not
	// tell.
	WithoutEffect []string `json:"without_effect,omitempty"`
	Unread        []string `json:"unread,omitempty"`
}

// RuntimeEntry is one runtime value: what it is in each layer, "" where it is not there, and what is in force.
type RuntimeEntry struct {
	Layers []string `json:"layer_values"`
	Final  string   `json:"final_value"`
}

// Circuit is the state of a circuit breaker, of a cluster or of one of its hosts.
type Circuit struct {
	Cluster string `json:"cluster"`
	// Host is "" where the circuit is that of the whole cluster.
	Host   string    `json:"host,omitempty"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// NextProbe is when an open circuit lets a probe through.
	NextProbe time.Time `json:"next_probe,omitzero"`
	// Requests, Failures and Slow are what the window holds.
	Requests uint32 `json:"requests"`
	Failures uint32 `json:"failures"`
	Slow     uint32 `json:"slow"`
}

// XDS is how the proxy stands with its control plane.
type XDS struct {
	// ControlPlane is what it calls itself, or its address.
	ControlPlane string    `json:"control_plane,omitempty"`
	Connected    bool      `json:"connected"`
	Since        time.Time `json:"since,omitzero"`
	// Saved is when what is in force was saved to the disk, where the control plane has not answered since the start; Degraded
	// says why what is in force may not be what it wants.
	Saved    time.Time `json:"saved,omitzero"`
	Degraded string    `json:"degraded,omitempty"`
	// Held says that an older configuration is held by hand, and which.
	Held  string    `json:"held,omitempty"`
	Types []XDSType `json:"types"`
}

// Coverage is what was accepted and changes nothing here.
type Coverage struct {
	Bootstrap []BootstrapNote   `json:"bootstrap"`
	Resources []CoveredResource `json:"resources"`
}

// BootstrapNote is what is to be said of a field of the bootstrap. Line counts from 1.
type BootstrapNote struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Path string `json:"path"`
	What string `json:"what"`
}

// CoveredResource is a resource in force that has fields without effect.
type CoveredResource struct {
	Type    string         `json:"type"`
	Name    string         `json:"name"`
	Source  string         `json:"source,omitempty"`
	Version string         `json:"version,omitempty"`
	Fields  []CoveredField `json:"fields"`
}

// CoveredField is a field that changes nothing here. Path is "" where only the number of fields was kept.
type CoveredField struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Past is a configuration that is, or was, in force.
type Past struct {
	// Snapshot is its number. Listeners, Routes and Clusters are the version_info strings.
	Snapshot  uint64    `json:"snapshot"`
	At        time.Time `json:"at"`
	Listeners string    `json:"listeners"`
	Routes    string    `json:"routes"`
	Clusters  string    `json:"clusters"`
	// InForce says that the proxy serves with it; Held that this is so by hand, until it is released.
	InForce bool `json:"in_force"`
	Held    bool `json:"held,omitempty"`
	// Changed are the resources that it has otherwise than the one before it, with + - or ~ before them; the first twenty of
	// All.
	Changed []string `json:"changed"`
	All     int      `json:"changes"`
}

// XDSType is the state of one type of resource.
type XDSType struct {
	Type string `json:"type"`
	// State is "synced", "rejected", "warming" or "never".
	State string `json:"state"`
	// Version is the version in force, Seen the last one that was sent.
	Version   string      `json:"version"`
	Seen      string      `json:"seen_version,omitempty"`
	Updated   time.Time   `json:"updated,omitzero"`
	Resources int         `json:"resources"`
	Rejected  []Rejection `json:"rejected,omitempty"`
	Warming   []string    `json:"warming,omitempty"`
}

// Rejection says why a resource was refused.
type Rejection struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// ServerInfo is what /server_info prints, in the shape of envoy.admin.v3.ServerInfo.
type ServerInfo struct {
	// Version is "revision/version/status/type/ssl", as Envoy's --version.
	Version string
	State   State
	// Uptime is that of this process.
	Uptime time.Duration
	// Options are the command line options by their name in envoy.admin.v3.CommandLineOptions, such as "config_path".
	Options CommandLineOptions
	Node    Node
}

// CommandLineOptions are the options that the process was started with.
type CommandLineOptions struct {
	Concurrency                int      `json:"concurrency"`
	ConfigPath                 string   `json:"config_path"`
	ConfigYAML                 string   `json:"config_yaml"`
	AllowUnknownStaticFields   bool     `json:"allow_unknown_static_fields"`
	RejectUnknownDynamicFields bool     `json:"reject_unknown_dynamic_fields"`
	IgnoreUnknownDynamicFields bool     `json:"ignore_unknown_dynamic_fields"`
	AdminAddressPath           string   `json:"admin_address_path"`
	LocalAddressIPVersion      string   `json:"local_address_ip_version"`
	LogLevel                   string   `json:"log_level"`
	ComponentLogLevel          string   `json:"component_log_level"`
	LogFormat                  string   `json:"log_format"`
	LogPath                    string   `json:"log_path"`
	ServiceCluster             string   `json:"service_cluster"`
	ServiceNode                string   `json:"service_node"`
	ServiceZone                string   `json:"service_zone"`
	DrainStrategy              string   `json:"drain_strategy"` // "Gradual" or "Immediate"
	Mode                       string   `json:"mode"`           // "Serve", "Validate" or "InitOnly"
	DrainTime                  Duration `json:"drain_time"`
	ParentShutdownTime         Duration `json:"parent_shutdown_time"`
	FileFlushInterval          Duration `json:"file_flush_interval"`
	FileFlushMinSize           int      `json:"file_flush_min_size"`
	DisableHotRestart          bool     `json:"disable_hot_restart"`
	RestartEpoch               int      `json:"restart_epoch"`
	EnableCoreDump             bool     `json:"enable_core_dump"`
	SkipDeprecatedLogs         bool     `json:"skip_deprecated_logs"`
}

// Duration is printed as protobuf prints it: "1.500s".
type Duration time.Duration

// MarshalText prints the duration.
func (d Duration) MarshalText() ([]byte, error) {
	t := time.Duration(d)
	if t%time.Second == 0 {
		return fmt.Appendf(nil, "%ds", t/time.Second), nil
	}
	return fmt.Appendf(nil, "%.3fs", t.Seconds()), nil
}

// Node is envoy.config.core.v3.Node.
type Node struct {
	ID       string         `json:"id"`
	Cluster  string         `json:"cluster"`
	Metadata map[string]any `json:"metadata,omitempty"`
	Locality Locality       `json:"locality"`
	// UserAgent and Build are what the proxy calls itself to a control plane.
	UserAgent      string         `json:"user_agent_name"`
	Build          BuildVersion   `json:"user_agent_build_version"`
	Extensions     []Extension    `json:"extensions"`
	ClientFeatures []string       `json:"client_features"`
	Listening      []any          `json:"listening_addresses"`
	Dynamic        map[string]any `json:"dynamic_parameters"`
}

// Locality is envoy.config.core.v3.Locality.
type Locality struct {
	Region  string `json:"region"`
	Zone    string `json:"zone"`
	SubZone string `json:"sub_zone"`
}

// BuildVersion is envoy.config.core.v3.BuildVersion.
type BuildVersion struct {
	Version struct {
		Major int `json:"major_number"`
		Minor int `json:"minor_number"`
		Patch int `json:"patch"`
	} `json:"version"`
	Metadata map[string]string `json:"metadata"`
}

// Extension is envoy.config.core.v3.Extension.
type Extension struct {
	Name     string   `json:"name"`
	Category string   `json:"category"`
	Disabled bool     `json:"disabled"`
	TypeURLs []string `json:"type_urls"`
}
