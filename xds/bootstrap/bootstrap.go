// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/logform"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/layered"
	"github.com/meshtap/meshtap/xds/resource"
)

// overrideName stands for the file's name in messages about the override.
const overrideName = "--config-yaml"

// Options says what to read. The flags are Envoy's.
type Options struct {
	// Path is the file (-c, --config-path). It may be "" where YAML is not.
	Path string
	// YAML is merged over the file (--config-yaml), as Envoy does: fields replace fields, lists grow.
	YAML string
	// NodeID, NodeCluster and NodeZone replace those of the file where they are not "" (--service-node,
	// --service-cluster, --service-zone).
	NodeID, NodeCluster, NodeZone string
	// LogFormSet says that the command line gives the form of the log (--log-format); the bootstrap must not, then.
	LogFormSet bool
	// StatsTags are tags of all statistics (--stats-tag).
	StatsTags []stats.Tag
	// AllowUnknownStaticFields reports unknown fields instead of refusing them.
	AllowUnknownStaticFields bool
	// AcceptObservational accepts what only affects what can be seen of traffic; see resource.Options.
	AcceptObservational bool
	// RejectUnknownDynamicFields is handed on in Config.Resource.
	RejectUnknownDynamicFields bool
	// Parsers reads extensions. Required.
	Parsers *registry.Parsers
	// Runtime takes the layers of the runtime; nil makes one.
	Runtime *layered.Runtime
	// Version is this program's version, for the control plane.
	Version string
	// ReadFile and LookupEnv serve data sources; see resource.Options.
	ReadFile  func(name string, max int) ([]byte, error)
	LookupEnv func(name string) (string, bool)
}

// Config is an accepted bootstrap.
type Config struct {
	// Node is who this proxy is, and NodeProto what the first request of the xDS stream says of it.
	Node      mesh.Node
	NodeProto *corev3.Node
	Admin     Admin
	// Listeners, Clusters and Secrets are the static resources, in the order of the file.
	Listeners, Clusters, Secrets []Static
	// Dynamic is nil where the static resources are all there is.
	Dynamic *Dynamic
	// Connections bounds the downstream connections of the process; 0 leaves that to the default.
	Connections int
	// ConnectionsRuntime replaces Connections by the value of a runtime key, where that has one and nothing else sets the bound.
	ConnectionsRuntime mesh.RuntimeKey
	// Runtime is the runtime with its layers, RTDS those of them that have to be fetched.
	Runtime *layered.Runtime
	RTDS    []RTDSLayer
	// Stats says how statistics are named, nil as they are; StatsInterval is the interval of histograms, 0 the default.
	Stats         *stats.Naming
	StatsInterval time.Duration
	// LogForm is the form of the process' own log, nil where the bootstrap says nothing of it.
	LogForm *logform.Form
	// Extensions are the bootstrap extensions, in order.
	Extensions []mesh.Extension
	// Discovered are the configurations of extensions that are to be asked for.
	Discovered []resource.Refs
	// Resource says how to decode what the control plane sends.
	Resource resource.Options
	// Bootstrap is the message itself, with the override merged in, for dumps. It must not be changed.
	Bootstrap *bootstrapv3.Bootstrap
	// Warnings are what was accepted and deserves a word, in the order of places.
	Warnings []Issue
}

// Admin is where the administration interface listens.
type Admin struct {
	// Address is the zero value where the bootstrap names none.
	Address mesh.Address
	// Mode is the file mode of a unix socket; 0 leaves it to the default.
	Mode os.FileMode
}

// Static is a resource of the bootstrap, with its serialized form for dumps.
type Static struct {
	resource.Decoded
	TypeURL string
	Raw     []byte
}

// Load reads a bootstrap. The error is an *Invalid with everything that is wrong.
func Load(opt Options) (*Config, error) {
	l := load(opt)
	l.report.sort()
	if l.report.Errors() > 0 {
		return nil, &Invalid{*l.report}
	}
	l.config.Warnings = l.report.Issues
	return l.config, nil
}

// Validate reads a bootstrap and reports everything there is to say about it, beyond what Load does: also where a
// default applies that a reader of the file may not expect.
func Validate(opt Options) Report {
	l := load(opt)
	l.lint()
	l.report.sort()
	return *l.report
}

// load reads what can be read, even where there are errors.
func load(opt Options) *loader {
	l := &loader{opt: opt, report: &Report{File: opt.Path}, config: &Config{Bootstrap: &bootstrapv3.Bootstrap{}}}
	if l.report.File == "" {
		l.report.File = overrideName
	}
	if l.read() {
		l.decode()
	}
	return l
}

// loader is the reading of one bootstrap.
type loader struct {
	opt    Options
	report *Report
	config *Config
	// doc is what the walk of the texts remembers; that of an override is merged into it.
	doc *walker
}

// read brings the texts together as one message, and returns false where there is nothing to decode.
func (l *loader) read() bool {
	if l.opt.Path == "" && l.opt.YAML == "" {
		const hint = "give one with -c FILE or --config-yaml TEXT"
		l.report.fail(position{file: l.report.File}, "", "there is no configuration", hint)
		return false
	}
	l.doc = newWalker(l.report.File, l.report, l.opt.AllowUnknownStaticFields)
	if l.opt.Path != "" {
		text, err := readFile(l.opt.Path)
		if err != nil {
			l.report.fail(position{file: l.opt.Path}, "", err.Error(), "")
			return false
		}
		m, ok := l.convert(l.doc, text)
		if !ok {
			return false
		}
		l.config.Bootstrap = m
	}
	if l.opt.YAML != "" {
		doc := newWalker(overrideName, l.report, l.opt.AllowUnknownStaticFields)
		doc.base = l.doc
		m, ok := l.convert(doc, []byte(l.opt.YAML))
		if !ok {
			return false
		}
		proto.Merge(l.config.Bootstrap, m)
		l.doc.merge(doc)
	}
	return true
}

// convert turns a text into a message without what is wrong with it, which is reported.
func (l *loader) convert(w *walker, text []byte) (*bootstrapv3.Bootstrap, bool) {
	root := parse(w.file, text, l.report)
	if root == nil {
		return nil, false
	}
	m := &bootstrapv3.Bootstrap{}
	b, err := json.Marshal(w.message(root, m.ProtoReflect().Descriptor(), "", 0))
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	}
	if err != nil {
		l.report.fail(position{file: w.file}, "", fmt.Sprintf("cannot be read: %v", err), "")
		return nil, false
	}
	return m, true
}

// readFile reads a file of at most maxBytes; a longer one comes back too long, for parse to say so.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}
