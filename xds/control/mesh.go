// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// Mesh is a mesh.yaml. The tags are its schema; docs/mesh-yaml.md describes each field.
type Mesh struct {
	// Outbound is where proxies take the calls of their applications, unless their service says otherwise.
	Outbound Address             `yaml:"outbound"`
	Services map[string]*Service `yaml:"services"`
}

// names returns the names of the services in order.
func (m *Mesh) names() []string { return slices.Sorted(maps.Keys(m.Services)) }

// Service is something that is called by a name, or that calls others, or both.
type Service struct {
	Protocol    string       `yaml:"protocol"`
	Domains     []string     `yaml:"domains"`
	Port        uint16       `yaml:"port"`
	Outbound    Address      `yaml:"outbound"`
	Endpoints   []Endpoint   `yaml:"endpoints"`
	DNS         *DNS         `yaml:"dns"`
	HealthCheck *HealthCheck `yaml:"health_check"`
	Routes      []Route      `yaml:"routes"`
	Policy      Policy       `yaml:"policy"`
}

// hosted says whether requests can end here: whether there is a cluster of the service's own.
func (s *Service) hosted() bool { return s.Endpoints != nil || s.DNS != nil }

// callable says whether others can call the service by its names.
func (s *Service) callable() bool { return s.hosted() || len(s.Routes) > 0 }

func (s *Service) tcp() bool { return s.Protocol == protocolTCP }

// domains are the names that the service is called by.
func (s *Service) domains(name string) []string {
	if len(s.Domains) > 0 {
		return s.Domains
	}
	return []string{name}
}

// Endpoint is one instance of a service.
type Endpoint struct {
	// Address is where callers connect. Where App is set, the instance's proxy listens there, and App is the application.
	Address Address `yaml:"address"`
	App     Address `yaml:"app"`
	// Node is the node.id of the instance's proxy. It may be left out where the service has one instance with a proxy.
	Node    string  `yaml:"node"`
	Version string  `yaml:"version"`
	Weight  *uint32 `yaml:"weight"`
}

// DNS finds the endpoints of a service by name.
type DNS struct {
	Host    string   `yaml:"host"`
	Port    uint16   `yaml:"port"`
	Refresh Duration `yaml:"refresh"`
}

// HealthCheck asks each endpoint for a path, or connects to it where Path is empty.
type HealthCheck struct {
	Path           string   `yaml:"path"`
	Interval       Duration `yaml:"interval"`
	Timeout        Duration `yaml:"timeout"`
	UnhealthyAfter *uint32  `yaml:"unhealthy_after"`
	HealthyAfter   *uint32  `yaml:"healthy_after"`
}

// Route is one rule for calls to a service. The first rule that matches counts.
type Route struct {
	Match Match `yaml:"match"`
	// To is the service that answers, by default the one that the route stands in.
	To string `yaml:"to"`
	// Split sends shares of the calls to versions of the service.
	Split    []Share   `yaml:"split"`
	Timeout  *Duration `yaml:"timeout"`
	Retry    *Retry    `yaml:"retry"`
	Fallback *Fallback `yaml:"fallback"`
}

// target is the service that answers calls to the service that the route stands in.
func (r *Route) target(own string) string { return cmp.Or(r.To, own) }

// Match selects requests; all of its parts must hold. An empty one selects all.
type Match struct {
	Path    string        `yaml:"path"`
	Prefix  string        `yaml:"prefix"`
	Regex   string        `yaml:"regex"`
	Methods []string      `yaml:"methods"`
	Headers []HeaderMatch `yaml:"headers"`
}

// HeaderMatch tests one header; exactly one of its tests is set.
type HeaderMatch struct {
	Name    string `yaml:"name"`
	Exact   string `yaml:"exact"`
	Prefix  string `yaml:"prefix"`
	Regex   string `yaml:"regex"`
	Present *bool  `yaml:"present"`
}

// Share is the part of the calls that a version gets.
type Share struct {
	Version string  `yaml:"version"`
	Weight  *uint32 `yaml:"weight"`
}

// Retry says which failed attempts are repeated.
type Retry struct {
	On []string `yaml:"on"`
	// Retries is the number of attempts after the first.
	Retries       *uint32  `yaml:"retries"`
	PerTryTimeout Duration `yaml:"per_try_timeout"`
	BackOff       Duration `yaml:"backoff"`
	MaxBackOff    Duration `yaml:"max_backoff"`
	Statuses      []uint32 `yaml:"statuses"`
}

// Fallback answers where the service cannot: another service, or a fixed answer.
type Fallback struct {
	On      []string          `yaml:"on"`
	To      string            `yaml:"to"`
	Status  uint32            `yaml:"status"`
	Body    string            `yaml:"body"`
	Headers map[string]string `yaml:"headers"`
}

// Policy is how callers treat a service.
type Policy struct {
	LB             string   `yaml:"lb"`
	ConnectTimeout Duration `yaml:"connect_timeout"`
	PanicThreshold *Percent `yaml:"panic_threshold"`
	Limits         *Limits  `yaml:"limits"`
	Outlier        *Outlier `yaml:"outlier"`
	Breaker        *Breaker `yaml:"breaker"`
}

// Limits bound what is in flight to a service, for each calling proxy.
type Limits struct {
	Connections            *uint32  `yaml:"connections"`
	Pending                *uint32  `yaml:"pending"`
	Requests               *uint32  `yaml:"requests"`
	Retries                *uint32  `yaml:"retries"`
	RetryBudget            *Percent `yaml:"retry_budget"`
	ConnectionsPerEndpoint *uint32  `yaml:"connections_per_endpoint"`
}

// Outlier ejects endpoints by what requests experience.
type Outlier struct {
	Consecutive5xx     *uint32  `yaml:"consecutive_5xx"`
	ConsecutiveGateway *uint32  `yaml:"consecutive_gateway"`
	Interval           Duration `yaml:"interval"`
	Ejection           Duration `yaml:"ejection"`
	MaxEjected         *Percent `yaml:"max_ejected"`
}

// Breaker is Meshtap's circuit breaker, which opens on what requests experience.
type Breaker struct {
	Window              Duration `yaml:"window"`
	MinVolume           *uint32  `yaml:"min_volume"`
	ConsecutiveFailures uint32   `yaml:"consecutive_failures"`
	ErrorRate           Percent  `yaml:"error_rate"`
	SlowRate            Percent  `yaml:"slow_rate"`
	SlowAfter           Duration `yaml:"slow_after"`
	OpenFor             Duration `yaml:"open_for"`
	Probes              *uint32  `yaml:"probes"`
	ProbeSuccesses      *uint32  `yaml:"probe_successes"`
	PerEndpoint         bool     `yaml:"per_endpoint"`
}

// scalar is a type that reads itself from a single value.
type scalar interface{ parse(text string) *valueError }

// valueError says what a value must be, beginning with a verb: the field's name stands before it.
type valueError struct{ msg, hint string }

func mustBe(format string, args ...any) *valueError {
	return &valueError{msg: "must be " + fmt.Sprintf(format, args...)}
}

// Duration is a length of time, such as 250ms or 5s.
type Duration time.Duration

func (d *Duration) parse(text string) *valueError {
	v, err := time.ParseDuration(text)
	if text == "0" || err != nil || v < 0 || v > 365*24*time.Hour {
		e := mustBe("a duration from 0s to 8760h, such as 250ms or 5s")
		if _, err := strconv.ParseUint(text, 10, 16); err == nil {
			e.hint = fmt.Sprintf("write %ss", text)
		}
		return e
	}
	*d = Duration(v)
	return nil
}

// Percent is a share from 0 to 100, such as 30%.
type Percent float64

func (p *Percent) parse(text string) *valueError {
	digits, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || !percent || math.IsNaN(v) || v < 0 || v > 100 {
		e := mustBe("a share from 0%% to 100%%, such as 30%%")
		if err == nil && !percent && v > 0 && v <= 100 {
			if v < 1 {
				v *= 100
			}
			e.hint = fmt.Sprintf("write %g%%", v)
		}
		return e
	}
	*p = Percent(v)
	return nil
}

// Address is a place to listen or to connect to. Its zero value is no address.
type Address mesh.Address

func (a *Address) parse(text string) *valueError {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		// sockaddr_un(7): the path has 108 bytes with its end.
		if path == "" || path[0] != '/' || len(path) > 107 {
			return mustBe("a socket's absolute path of at most 107 bytes, such as unix:/run/orders.sock")
		}
		*a = Address{Pipe: path}
		return nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return mustBe("an IP address and a port, such as 10.0.0.7:8080, or unix:/path; a name belongs in dns")
	}
	*a = Address{IP: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}
	return nil
}

// String returns the address as mesh.yaml has it.
func (a Address) String() string {
	if a.Pipe != "" {
		return "unix:" + a.Pipe
	}
	return mesh.Address(a).String()
}

// The words that some fields take.
const (
	protocolHTTP = "http"
	protocolTCP  = "tcp"
)
