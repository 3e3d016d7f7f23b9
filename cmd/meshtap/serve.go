// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/logform"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/accelerate"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

// serveFlags are the flags of the proxy: Envoy's, and a few of our own behind them.
type serveFlags struct {
	config, configYAML         string
	node, cluster, zone        string
	concurrency                uint32
	logLevel, componentLevel   string
	logPath, logFormat         string
	drainTime, parentShutdown  uint32
	mode                       string
	adminAddressPath           string
	restartEpoch               uint32
	allowStatic, rejectDynamic bool
	ignoreDynamic              bool
	skipDeprecated             bool
	ipVersion                  string
	hotRestartVersion          bool
	statsTags                  []string

	// Our own.
	admin         string
	observational bool
	profiles      bool
	keepOnEmpty   bool
	noTap         bool
	logJSON       bool
	quietMsec     uint32
	accelerate    string
	cache         string
	cacheAge      time.Duration
	csds          string
}

// ignored are flags of Envoy that mean nothing here. They are accepted, and a warning says so where they are given.
var ignored = []struct{ name, why string }{
	{"base-id", noSharedMemory},
	{"base-id-path", noSharedMemory},
	{"component-log-level", "one level holds for all components"},
	{"cpuset-threads", "Go schedules its own threads; use --concurrency"},
	{"disable-extensions", "what is not configured costs nothing"},
	{"drain-strategy", "connections are told to close at once"},
	{"enable-core-dump", "core dumps hold keys and stay off"},
	{"enable-fine-grain-logging", "one level holds for all components"},
	{"enable-mutex-tracing", "there are no statistics of mutexes"},
	{"file-flush-interval-msec", "access logs are flushed every second"},
	{"file-flush-min-size-kb", "access logs are flushed at 64 KiB"},
	{"local-address-ip-version", "addresses follow the system"},
	{"log-format-escaped", "logs are always escaped"},
	{"log-stacktrace-single-entry", "a stack trace is one entry in any case"},
	{"parent-shutdown-time-s", noHotRestart},
	{"restart-epoch", noHotRestart + "; it is only shown as server.hot_restart_epoch"},
	{"skip-hot-restart-on-no-parent", noHotRestart},
	{"skip-hot-restart-parent-stats", noHotRestart},
	{"socket-mode", noHotRestart},
	{"socket-path", noHotRestart},
	{"use-dynamic-base-id", noSharedMemory},
}

const (
	noSharedMemory = "there is no shared memory"
	noHotRestart   = "there is no hot restart"
)

func newServe() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve -c FILE",
		Short: "Run the proxy from an Envoy v3 bootstrap (YAML or JSON)",
		Example: `  meshtap serve -c bootstrap.yaml
  meshtap serve -c bootstrap.yaml --mode validate`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(cmd)
	cli.Rest(cmd, "log-path", "log-json", "config-yaml", "service-zone", "admin-address-path", "allow-unknown-static-fields",
		"reject-unknown-dynamic-fields", "keep-on-empty", "drain-quiet-msec", "accept-observational", "no-tap",
		"accelerate", "config-cache", "config-cache-max-age", "csds", "enable-profiles")
	return cmd
}

// add adds the flags to a command.
func (f *serveFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVarP(&f.config, "config-path", "c", "", "`file`: the bootstrap")
	s.StringVar(&f.configYAML, "config-yaml", "", "`text`: YAML that is merged over the bootstrap")
	s.StringVar(&f.node, "service-node", "", "`id`: node.id")
	s.StringVar(&f.cluster, "service-cluster", "", "`name`: node.cluster")
	s.StringVar(&f.zone, "service-zone", "", "`name`: node.locality.zone")
	s.Uint32Var(&f.concurrency, "concurrency", 0, "`number` of processors to use; 0: as the cgroup says")
	s.StringVarP(&f.logLevel, "log-level", "l", "info", "`level`: "+strings.Join(admin.Levels[:], " "))
	s.StringVar(&f.logPath, "log-path", "", "`file` to write the log to instead of standard error")
	s.Uint32Var(&f.drainTime, "drain-time-s", 30, "`seconds`: how long connections may go on at the end")
	s.StringVar(&f.mode, "mode", "serve", "`mode`: serve or validate")
	s.StringVar(&f.adminAddressPath, "admin-address-path", "", "`file` to write the address of the administration server to")
	s.BoolVar(&f.allowStatic, "allow-unknown-static-fields", false, "report unknown fields of the bootstrap instead of refusing them")
	s.BoolVar(&f.rejectDynamic, "reject-unknown-dynamic-fields", false, "refuse xDS resources with unknown fields instead of counting them")
	s.StringVar(&f.admin, "admin", "", "`address` or path to administer, if FILE has none")
	s.BoolVar(&f.profiles, "enable-profiles", false, "let /profile of the administration server answer")
	s.BoolVar(&f.observational, "accept-observational", false, "take tracing, stats sinks and the like without effect, with a warning, instead of refusing them")
	s.BoolVar(&f.keepOnEmpty, "keep-on-empty", false, "keep the last listeners or clusters when one response would remove all")
	s.BoolVar(&f.noTap, "no-tap", false, "no event tap where the bootstrap configures none")
	s.BoolVar(&f.logJSON, "log-json", false, "log JSON also on a terminal")
	s.Uint32Var(&f.quietMsec, "drain-quiet-msec", 2000, "`milliseconds` without a connection after which a drain ends early")
	s.StringVar(&f.accelerate, "accelerate", "", "`how`: sockmap splices local connections of this cgroup in the kernel, sockmap:/path of another; off by default, see docs/adr/0012-sockmap.md")
	s.StringVar(&f.cache, "config-cache", "", "`directory` to keep the last good configuration in, to start from where the control plane does not answer")
	s.StringVar(&f.csds, "csds", "", "`address`: serve the client status discovery service (gRPC) at unix:/path or a loopback address")
	s.DurationVar(&f.cacheAge, "config-cache-max-age", xds.DefaultCacheAge, "`time`: how old what --config-cache keeps may be to be used")
	cli.NoEnv(cmd, "admin") // MESHTAP_ADMIN says where other verbs look
	f.addEnvoy(s)
}

// addEnvoy adds the flags that only Envoy's users know: those that do nothing, and those that ask for what is so anyway.
func (f *serveFlags) addEnvoy(s *pflag.FlagSet) {
	before := map[string]bool{}
	s.VisitAll(func(f *pflag.Flag) { before[f.Name] = true })
	s.BoolVar(&f.allowStatic, "allow-unknown-fields", false, "as --allow-unknown-static-fields, under its old name")
	s.BoolVar(&f.ignoreDynamic, "ignore-unknown-dynamic-fields", false, "unknown fields of xDS resources are counted in any case")
	s.Bool("disable-hot-restart", false, noHotRestart)
	s.BoolVar(&f.skipDeprecated, "skip-deprecated-logs", false, "the log does not tell of deprecated fields in any case")
	s.BoolVar(&f.hotRestartVersion, "hot-restart-version", false, "say \"disabled\" and end")
	s.StringVar(&f.componentLevel, "component-log-level", "", "")
	s.StringVar(&f.logFormat, "log-format", "", "`form` of the log, in the words of Envoy's: [%Y-%m-%d %T.%e][%l][%n] %v")
	s.Uint32Var(&f.parentShutdown, "parent-shutdown-time-s", 900, "")
	s.Uint32Var(&f.restartEpoch, "restart-epoch", 0, "")
	s.StringVar(&f.ipVersion, "local-address-ip-version", "v4", "")
	s.StringArrayVar(&f.statsTags, "stats-tag", nil, "`TAG:VALUE`: a tag of all statistics; may be given several times")
	s.String("drain-strategy", "gradual", "")
	for _, name := range []string{"base-id", "file-flush-interval-msec", "file-flush-min-size-kb"} {
		s.Uint32(name, 0, "")
	}
	for _, name := range []string{"base-id-path", "disable-extensions", "socket-mode", "socket-path"} {
		s.String(name, "", "")
	}
	for _, name := range []string{
		"cpuset-threads", "enable-core-dump", "enable-fine-grain-logging", "enable-mutex-tracing", "log-format-escaped",
		"log-stacktrace-single-entry", "skip-hot-restart-on-no-parent", "skip-hot-restart-parent-stats", "use-dynamic-base-id",
	} {
		s.Bool(name, false, "")
	}
	for _, v := range ignored {
		s.Lookup(v.name).Usage = "no effect: " + v.why
	}
	s.VisitAll(func(f *pflag.Flag) { f.Hidden = f.Hidden || !before[f.Name] })
}

func (f *serveFlags) run(cmd *cobra.Command) error {
	if err := cli.FromEnv(cmd, os.LookupEnv); err != nil {
		return err
	}
	switch {
	case f.hotRestartVersion:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "disabled") // as Envoy with --disable-hot-restart
		return err
	case f.config == "" && f.configYAML == "":
		return cli.Usage("give a bootstrap with -c FILE or --config-yaml TEXT", "there is nothing to serve")
	case f.mode != "serve" && f.mode != "validate":
		return cli.Usage("serve and validate are allowed", "there is no --mode %q", f.mode)
	case f.logLevel != "warn" && !slices.Contains(admin.Levels[:], f.logLevel): // warn is Envoy's other name of warning
		return cli.Usage(cli.DidYouMean(f.logLevel, admin.Levels[:]), "there is no --log-level %q", f.logLevel)
	}
	if f.concurrency > 0 {
		runtime.GOMAXPROCS(int(min(f.concurrency, maxProcessors)))
	}
	opt, err := f.options()
	if err != nil {
		return err
	}
	if f.mode == "validate" {
		return f.validate(cmd, opt.Bootstrap)
	}
	log, level, err := f.logger(opt.LogForm)
	if err != nil {
		return err
	}
	defer log.Sync() //nolint:errcheck // standard error cannot be synced on every system
	for _, v := range ignored {
		if cmd.Flags().Changed(v.name) {
			log.Warn("a flag has no effect here", zap.String("flag", "--"+v.name), zap.String("why", v.why))
		}
	}
	a, err := app.New(opt, log, level)
	if err != nil {
		return err
	}
	return a.Run(cmd.Context())
}

// maxProcessors bounds --concurrency; more of them than any machine has cost memory and gain nothing.
const maxProcessors = 4096

// validate reads the bootstrap and says everything there is to say about it.
func (f *serveFlags) validate(cmd *cobra.Command, opt bootstrap.Options) error {
	opt.Parsers = app.NewExtensions(os.Stdout).Parsers()
	report := bootstrap.Validate(opt)
	if report.Errors() > 0 {
		fmt.Fprint(cmd.ErrOrStderr(), report.Text())
		return cli.Quiet(cli.ExitConfig)
	}
	fmt.Fprint(cmd.OutOrStdout(), report.Text())
	fmt.Fprintf(cmd.OutOrStdout(), "configuration '%s' OK\n", f.config)
	return nil
}

func (f *serveFlags) options() (app.Options, error) {
	at, err := adminAddress(f.admin)
	if err != nil {
		return app.Options{}, err
	}
	tags, err := statsTags(f.statsTags)
	if err != nil {
		return app.Options{}, err
	}
	accelerated, err := accelerateConfig(f.accelerate)
	return app.Options{
		Admin: at, Profiles: f.profiles, Accelerate: accelerated, LogForm: f.form(),
		Bootstrap: bootstrap.Options{
			Path: f.config, YAML: f.configYAML, NodeID: f.node, NodeCluster: f.cluster, NodeZone: f.zone,
			AllowUnknownStaticFields: f.allowStatic, RejectUnknownDynamicFields: f.rejectDynamic,
			StatsTags: tags, LogFormSet: f.logFormat != "",
			AcceptObservational: f.observational, Version: version.Number, LookupEnv: os.LookupEnv,
		},
		AdminAddressPath: f.adminAddressPath, DrainTime: time.Duration(f.drainTime) * time.Second,
		Quiet:       time.Duration(f.quietMsec) * time.Millisecond,
		KeepOnEmpty: f.keepOnEmpty, Cache: f.cache, CacheAge: f.cacheAge, CSDS: f.csds, NoTap: f.noTap, RestartEpoch: int(f.restartEpoch),
		Info: admin.CommandLineOptions{
			Concurrency: runtime.GOMAXPROCS(0), ConfigPath: f.config, ConfigYAML: f.configYAML,
			AllowUnknownStaticFields: f.allowStatic, RejectUnknownDynamicFields: f.rejectDynamic,
			IgnoreUnknownDynamicFields: f.ignoreDynamic, AdminAddressPath: f.adminAddressPath,
			LocalAddressIPVersion: f.ipVersion, LogLevel: f.logLevel, ComponentLogLevel: f.componentLevel,
			LogFormat: f.logFormat, LogPath: f.logPath, ServiceCluster: f.cluster, ServiceNode: f.node, ServiceZone: f.zone,
			DrainStrategy: "Immediate", Mode: "Serve", DrainTime: admin.Duration(time.Duration(f.drainTime) * time.Second),
			ParentShutdownTime: admin.Duration(time.Duration(f.parentShutdown) * time.Second),
			FileFlushInterval:  admin.Duration(time.Second), FileFlushMinSize: 64,
			DisableHotRestart: true, RestartEpoch: int(f.restartEpoch), SkipDeprecatedLogs: f.skipDeprecated,
		},
	}, err
}

// form is the form of the log that the flags give.
func (f *serveFlags) form() *app.LogForm {
	form := &app.LogForm{}
	if f.logFormat != "" {
		form.Set(logform.Parse(f.logFormat))
	}
	return form
}

// statsTags reads --stats-tag.
func statsTags(list []string) (out []stats.Tag, err error) {
	for _, s := range list {
		name, value, found := strings.Cut(s, ":")
		if !found || name == "" || value == "" {
			return nil, cli.Usage("give TAG:VALUE, as zone:west", "--stats-tag %q is no tag", s)
		}
		out = append(out, stats.Tag{Name: name, Value: value})
	}
	return out, nil
}

// accelerateConfig reads --accelerate; nil is for nothing.
func accelerateConfig(s string) (*accelerate.Config, error) {
	cfg, on, err := accelerate.Parse(s)
	if err != nil {
		return nil, cli.Usage("sockmap is allowed, or sockmap:/path with the absolute path of a cgroup2 folder", "%s", err.Error())
	}
	if !on {
		return nil, nil
	}
	return &cfg, nil
}

// adminAddress reads --admin: an IP address with a port, or the path of a socket, which has a slash.
func adminAddress(s string) (mesh.Address, error) {
	if s == "" {
		return mesh.Address{}, nil
	}
	if path := strings.TrimPrefix(s, "unix://"); strings.Contains(path, "/") {
		return mesh.Address{Pipe: path}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return mesh.Address{}, cli.Usage("give an IP address with a port, as 127.0.0.1:9901, or the path of a socket, as ./admin.sock", "--admin %q is no address to listen on", s)
	}
	return mesh.Address{IP: ap}, nil
}

// logger logs in the form that is given, and else for a person on a terminal and in JSON elsewhere (ux.md section 6).
func (f *serveFlags) logger(form *app.LogForm) (*zap.Logger, *zap.AtomicLevel, error) {
	level := zap.NewAtomicLevelAt(app.Level(f.logLevel))
	out := os.Stderr
	if f.logPath != "" {
		file, err := os.OpenFile(f.logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("--log-path: %w", err)
		}
		out = file
	}
	cfg := zap.NewProductionEncoderConfig()
	cfg.CallerKey = zapcore.OmitKey // it is for forms that ask for it
	cfg.EncodeTime = func(t time.Time, e zapcore.PrimitiveArrayEncoder) { e.AppendString(t.UTC().Format(time.RFC3339Nano)) }
	enc := zapcore.NewJSONEncoder(cfg)
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && !f.logJSON {
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		enc = zapcore.NewConsoleEncoder(cfg)
	}
	locked := zapcore.Lock(out)
	core := zapcore.NewSamplerWithOptions(form.Core(zapcore.NewCore(enc, locked, level), locked), time.Second, 10, 0)
	return zap.New(core, zap.AddCaller()), &level, nil
}
