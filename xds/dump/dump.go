// SPDX-License-Identifier: Apache-2.0

// Package dump renders what is known of the configuration as Envoy's /config_dump does, so that tools made for Envoy read
// it. It gets the accepted resources as the bytes they came in, and shows them as they came, but for what the API marks
// as sensitive: see Redactor.
//
// It does no I/O and keeps nothing. Package xds gathers the Input, proxy/admin serves the result.
package dump

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/meshtap/meshtap/mesh"
)

// Input is what is known of the configuration. Nothing of it is changed.
type Input struct {
	// Bootstrap is what the process was started with, at Started.
	Bootstrap *bootstrappb.Bootstrap
	Started   time.Time
	// Clusters, Listeners and Routes are sorted by name; ClusterVersion and ListenerVersion are the versions accepted last.
	Clusters, Listeners, Routes     []Entry
	ClusterVersion, ListenerVersion string
	// Secrets are those that are named, and those of the bootstrap, sorted by name; Live is nil for one that has not come.
	Secrets []Entry
	// ScopeSets are the scopes of connection managers in force that get them by SRDS, and Hosts the virtual hosts in force
	// that came by VHDS, by the place of their table in Routes.
	ScopeSets []ScopeSet
	Hosts     map[int][]Entry
	// Filters are the configurations of filters that come by themselves (ECDS), likewise.
	Filters []Entry
	// Endpoints are those of the clusters in force.
	Endpoints []Endpoints
	// Sources are where the resources come from. Where there are none, that is not shown: all of them come over the one
	// aggregated stream.
	Sources []Source
}

// Entry is one name of a type. Live is in force, Next is accepted and waits; Failure says why the last one was not taken.
type Entry struct {
	Name string
	// Source is one of Input.Sources, "" where the resource is static.
	Source     string
	Static     bool
	Live, Next *Resource
	Failure    *Failure
}

// Resource is the bytes of a resource, with the version and the time it came at.
type Resource struct {
	Raw     []byte
	Version string
	At      time.Time
	// NoEffect says which of its fields change nothing here, as "path: why".
	NoEffect []string
}

// Failure is a resource that was not taken.
type Failure struct {
	Reason, Version string
	At              time.Time
	Raw             []byte
}

// Endpoints are those of one cluster: the resource they came in, or what was found where Resource is nil.
type Endpoints struct {
	Cluster  string
	Source   string // as in Entry
	Static   bool
	Resource *Resource
	Set      *mesh.EndpointSet
}

// Options are the parameters of a dump.
type Options struct {
	// Endpoints adds the endpoints (include_eds).
	Endpoints bool
	// Name leaves out the resources whose name it does not match as a whole (name_regex); nil leaves out none.
	Name *regexp.Regexp
	// Part is one list of a dump, such as "dynamic_active_clusters", whose items alone are shown (resource); "" shows all.
	Part string
	// Mask is a field mask: of each part, or of each item of Part, those fields are shown; "" shows all.
	Mask string
	// Redactor hides what is sensitive. Required.
	Redactor *Redactor
}

// Render returns the dump as JSON, with the field names of the API. A Part or a Mask that nothing has is a *QueryError. A resource that has no form in JSON, such as one with
// a duration of a million years, is described instead.
func Render(in Input, opt Options) ([]byte, error) {
	out, err := render(in, opt, false)
	var query *QueryError
	if err != nil && !errors.As(err, &query) {
		return render(in, opt, true)
	}
	return out, err
}

// render makes a dump. careful looks at each resource by itself, which takes twice as long.
func render(in Input, opt Options, careful bool) ([]byte, error) {
	r := renderer{in: in, opt: opt, careful: careful}
	parts := []proto.Message{r.bootstrap(), r.clusters()}
	if opt.Endpoints {
		parts = append(parts, r.endpoints())
	}
	// Tools look for these parts even where nothing can be in them yet.
	parts = append(parts, r.listeners(), r.scopes(), r.routes(), r.secrets())
	if len(in.Filters) > 0 {
		parts = append(parts, r.filters())
	}
	if len(in.Sources) > 0 && opt.Part == "" {
		parts = append(parts, r.sources())
	}
	if r.err != nil {
		return nil, r.err
	}
	if opt.Part != "" {
		items, err := partOf(parts, opt.Part)
		if err == nil {
			parts, err = maskedItems(items, opt.Mask)
		}
		if err != nil {
			return nil, err
		}
	} else {
		var err error
		if parts, err = masked(parts, opt.Mask); err != nil {
			return nil, err
		}
	}
	out := &adminpb.ConfigDump{}
	for _, p := range parts {
		a, err := anypb.New(p)
		if err != nil {
			return nil, fmt.Errorf("dump: %w", err)
		}
		out.Configs = append(out.Configs, a)
	}
	return marshal(out)
}

// marshal makes JSON with one layout; protojson's own varies from build to build.
func marshal(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("dump: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil {
		return nil, fmt.Errorf("dump: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// renderer makes the parts of one dump. The first error stays.
type renderer struct {
	in      Input
	opt     Options
	careful bool
	err     error
}

// shown reports whether a name is to be in the dump.
func (r *renderer) shown(name string) bool {
	return r.opt.Name == nil || r.opt.Name.MatchString(name)
}

// resource returns the bytes of a resource without what is sensitive.
func (r *renderer) resource(typeURL string, raw []byte) *anypb.Any {
	from := &anypb.Any{TypeUrl: typeURL, Value: raw}
	a, err := r.opt.Redactor.any(from)
	if r.careful && err == nil {
		_, err = protojson.Marshal(a)
	}
	if r.careful && err != nil {
		a, err = describe(from, "that cannot be shown")
	}
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("dump: %s: %w", typeURL, err)
	}
	return a
}

// failed describes a resource that was not taken. Its bytes may be anything.
func (r *renderer) failed(typeURL string, f *Failure) *adminpb.UpdateFailureState {
	if f == nil {
		return nil
	}
	return &adminpb.UpdateFailureState{
		LastUpdateAttempt: stamp(f.At), Details: clean(f.Reason), VersionInfo: f.Version,
		FailedConfiguration: r.resource(typeURL, f.Raw),
	}
}

// clean makes a text that JSON can hold of one that came from bytes.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (r *renderer) bootstrap() proto.Message {
	out := &adminpb.BootstrapConfigDump{LastUpdated: stamp(r.in.Started)}
	if r.in.Bootstrap != nil {
		shown := proto.CloneOf(r.in.Bootstrap)
		if err := r.opt.Redactor.message(shown.ProtoReflect(), false); err != nil && r.err == nil {
			r.err = fmt.Errorf("dump: bootstrap: %w", err)
		}
		out.Bootstrap = shown
	}
	return out
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
