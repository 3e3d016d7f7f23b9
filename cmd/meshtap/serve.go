// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

// serveFlags are the flags of the proxy: Envoy's, and a few of our own behind them.
type serveFlags struct {
	set *pflag.FlagSet

	config, configYAML          string
	node, cluster, zone         string
	concurrency                 int
	logLevel, componentLevel    string
	logPath, logFormat          string
	drainTime, parentShutdown   int
	drainStrategy, mode         string
	adminAddressPath            string
	flushMsec, flushKB          int
	restartEpoch                int
	allowStatic, rejectDynamic  bool
	ignoreDynamic               bool
	disableHotRestart, coreDump bool
	skipDeprecated              bool
	ipVersion                   string

	// Our own.
	admin         string
	observational bool
	keepOnEmpty   bool
	noTap         bool
	logJSON       bool
	quietMsec     int
}

// inVain are flags of Envoy that mean nothing here. They are accepted, and say so.
var inVain = []struct {
	name, why string
	boolean   bool
}{
	{"base-id", "there is no shared memory", false},
	{"use-dynamic-base-id", "there is no shared memory", true},
	{"base-id-path", "there is no shared memory", false},
	{"skip-hot-restart-on-no-parent", "there is no hot restart", true},
	{"skip-hot-restart-parent-stats", "there is no hot restart", true},
	{"socket-path", "there is no hot restart", false},
	{"socket-mode", "there is no hot restart", false},
	{"hot-restart-version", "there is no hot restart", true},
	{"cpuset-threads", "Go schedules its own threads; use --concurrency", true},
	{"enable-fine-grain-logging", "one level holds for all", true},
	{"log-format-escaped", "logs are always escaped", true},
	{"disable-extensions", "what is not configured costs nothing", false},
	{"stats-tag", "tags are fixed", false},
	{"bootstrap-version", "only v3 is read", false},
}

func newServe() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve -c FILE",
		Short: "Run the proxy from an Envoy v3 bootstrap (YAML or JSON)",
		Example: `  meshtap serve -c bootstrap.yaml
  meshtap serve -c bootstrap.yaml --mode validate`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(cmd.Flags())
	cli.Rest(cmd, "log-path", "log-json", "config-yaml", "service-zone", "admin-address-path", "allow-unknown-static-fields",
		"reject-unknown-dynamic-fields", "keep-on-empty", "drain-quiet-msec", "accept-observational", "no-tap")
	return cmd
}

func (f *serveFlags) add(s *pflag.FlagSet) {
	f.set = s
	s.StringVarP(&f.config, "config-path", "c", "", "`file`: the bootstrap")
	s.StringVar(&f.configYAML, "config-yaml", "", "YAML that is merged over the bootstrap")
	s.StringVar(&f.node, "service-node", "", "`id`: node.id")
	s.StringVar(&f.cluster, "service-cluster", "", "`name`: node.cluster")
	s.StringVar(&f.zone, "service-zone", "", "`name`: node.locality.zone")
	s.IntVar(&f.concurrency, "concurrency", 0, "`processors` to use; 0 means those that the cgroup allows")
	s.StringVarP(&f.logLevel, "log-level", "l", "info", "`level`: trace, debug, info, warning, error, critical or off")
	s.StringVar(&f.componentLevel, "component-log-level", "", "accepted; one level holds for all components")
	s.StringVar(&f.logPath, "log-path", "", "write the log to this file instead of standard error")
	s.StringVar(&f.logFormat, "log-format", "", "accepted; see --log-json")
	s.IntVar(&f.drainTime, "drain-time-s", 30, "`seconds`: how long connections may go on after SIGTERM")
	s.IntVar(&f.parentShutdown, "parent-shutdown-time-s", 900, "accepted; there is no hot restart")
	s.StringVar(&f.drainStrategy, "drain-strategy", "gradual", "accepted; connections are told to close at once")
	s.StringVar(&f.mode, "mode", "serve", "`mode`: serve, validate or init_only")
	s.StringVar(&f.adminAddressPath, "admin-address-path", "", "write the administration address to this file")
	s.IntVar(&f.flushMsec, "file-flush-interval-msec", 1000, "accepted; access logs are flushed every second")
	s.IntVar(&f.flushKB, "file-flush-min-size-kb", 64, "accepted; access logs are flushed at 64 KiB")
	s.IntVar(&f.restartEpoch, "restart-epoch", 0, "shown as server.hot_restart_epoch")
	s.BoolVar(&f.allowStatic, "allow-unknown-static-fields", false, "report unknown fields of the bootstrap instead of refusing them")
	s.BoolVar(&f.allowStatic, "allow-unknown-fields", false, "the same, under its old name")
	s.BoolVar(&f.rejectDynamic, "reject-unknown-dynamic-fields", false, "refuse xDS resources with unknown fields instead of counting them")
	s.BoolVar(&f.ignoreDynamic, "ignore-unknown-dynamic-fields", false, "accepted; unknown fields are counted in any case")
	s.BoolVar(&f.disableHotRestart, "disable-hot-restart", false, "accepted; there is no hot restart")
	s.BoolVar(&f.coreDump, "enable-core-dump", false, "accepted; core dumps hold keys and stay off")
	s.BoolVar(&f.skipDeprecated, "skip-deprecated-logs", false, "accepted")
	s.StringVar(&f.ipVersion, "local-address-ip-version", "v4", "accepted; addresses follow the system")
	s.StringVar(&f.admin, "admin", "", "`address`: for administration, if the bootstrap has none; or a path")
	s.BoolVar(&f.observational, "accept-observational", false, "accept tracing, stats sinks and the like without effect, with a warning, instead of refusing them")
	s.BoolVar(&f.keepOnEmpty, "keep-on-empty", false, "keep the last listeners or clusters when one response would remove all")
	s.BoolVar(&f.noTap, "no-tap", false, "no event tap where the bootstrap configures none")
	s.BoolVar(&f.logJSON, "log-json", false, "log JSON also on a terminal")
	s.IntVar(&f.quietMsec, "drain-quiet-msec", 2000, "a drain ends early after so long without a connection")
	for _, v := range inVain {
		if v.boolean {
			s.Bool(v.name, false, "accepted; "+v.why)
		} else {
			s.String(v.name, "", "accepted; "+v.why)
		}
		s.Lookup(v.name).Hidden = true
	}
	for _, name := range []string{
		"allow-unknown-fields", "component-log-level", "log-format", "parent-shutdown-time-s", "file-flush-interval-msec",
		"file-flush-min-size-kb", "ignore-unknown-dynamic-fields", "disable-hot-restart", "enable-core-dump",
		"skip-deprecated-logs", "local-address-ip-version", "drain-strategy", "restart-epoch",
	} {
		s.Lookup(name).Hidden = true
	}
}

// given reports whether there is anything to serve.
func (f *serveFlags) given() bool { return f.config != "" || f.configYAML != "" }

func (f *serveFlags) run(cmd *cobra.Command) error {
	if !f.given() {
		return cli.Usage("give a bootstrap with -c FILE or --config-yaml TEXT", "there is nothing to serve")
	}
	switch f.mode {
	case "serve", "init_only":
	case "validate":
		return f.validate(cmd)
	default:
		return cli.Usage("serve, validate and init_only are allowed", "--mode %q", f.mode)
	}
	if f.concurrency > 0 {
		runtime.GOMAXPROCS(f.concurrency)
	}
	log, level, err := f.logger()
	if err != nil {
		return err
	}
	defer log.Sync() //nolint:errcheck // standard error cannot be synced on every system
	f.warnInVain(log)
	a, err := app.New(f.options(), log, level)
	if err != nil {
		return err
	}
	return a.Run(cmd.Context())
}

// validate reads the bootstrap and says everything there is to say about it.
func (f *serveFlags) validate(cmd *cobra.Command) error {
	opt := f.options().Bootstrap
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

func (f *serveFlags) options() app.Options {
	o := app.Options{
		Bootstrap: bootstrap.Options{
			Path: f.config, YAML: f.configYAML, NodeID: f.node, NodeCluster: f.cluster, NodeZone: f.zone,
			AllowUnknownStaticFields: f.allowStatic, RejectUnknownDynamicFields: f.rejectDynamic,
			AcceptObservational: f.observational, Version: version.Number, LookupEnv: os.LookupEnv,
		},
		AdminAddressPath: f.adminAddressPath, DrainTime: time.Duration(f.drainTime) * time.Second,
		Quiet:       time.Duration(f.quietMsec) * time.Millisecond,
		KeepOnEmpty: f.keepOnEmpty, NoTap: f.noTap, RestartEpoch: f.restartEpoch,
		Info: admin.CommandLineOptions{
			Concurrency: runtime.GOMAXPROCS(0), ConfigPath: f.config, ConfigYAML: f.configYAML,
			AllowUnknownStaticFields: f.allowStatic, RejectUnknownDynamicFields: f.rejectDynamic,
			IgnoreUnknownDynamicFields: f.ignoreDynamic, AdminAddressPath: f.adminAddressPath,
			LocalAddressIPVersion: f.ipVersion, LogLevel: f.logLevel, ComponentLogLevel: f.componentLevel,
			LogFormat: f.logFormat, LogPath: f.logPath, ServiceCluster: f.cluster, ServiceNode: f.node, ServiceZone: f.zone,
			DrainStrategy: "Immediate", Mode: "Serve", DrainTime: admin.Duration(time.Duration(f.drainTime) * time.Second),
			ParentShutdownTime: admin.Duration(time.Duration(f.parentShutdown) * time.Second),
			FileFlushInterval:  admin.Duration(time.Second), FileFlushMinSize: 64,
			DisableHotRestart: true, RestartEpoch: f.restartEpoch, SkipDeprecatedLogs: f.skipDeprecated,
		},
	}
	o.Admin = adminAddress(f.admin)
	return o
}

// adminAddress reads --admin.
func adminAddress(s string) mesh.Address {
	if s == "" {
		return mesh.Address{}
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return mesh.Address{IP: ap}
	}
	return mesh.Address{Pipe: s}
}

// logger logs for a person on a terminal and in JSON elsewhere (ux.md section 6).
func (f *serveFlags) logger() (*zap.Logger, *zap.AtomicLevel, error) {
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
	cfg.EncodeTime = func(t time.Time, e zapcore.PrimitiveArrayEncoder) { e.AppendString(t.UTC().Format(time.RFC3339Nano)) }
	enc := zapcore.NewJSONEncoder(cfg)
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && !f.logJSON {
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		enc = zapcore.NewConsoleEncoder(cfg)
	}
	core := zapcore.NewSamplerWithOptions(zapcore.NewCore(enc, zapcore.Lock(out), level), time.Second, 10, 0)
	return zap.New(core), &level, nil
}

// warnInVain says which of the given flags have no effect.
func (f *serveFlags) warnInVain(log *zap.Logger) {
	for _, v := range inVain {
		if f.set.Changed(v.name) {
			log.Warn("a flag has no effect here", zap.String("flag", "--"+v.name), zap.String("why", v.why))
		}
	}
	for name, why := range map[string]string{
		"component-log-level": "one level holds for all", "log-format": "use --log-json", "drain-strategy": "connections are told to close at once",
		"parent-shutdown-time-s": "there is no hot restart", "enable-core-dump": "core dumps stay off",
		"file-flush-interval-msec": "access logs are flushed every second", "file-flush-min-size-kb": "access logs are flushed at 64 KiB",
	} {
		if f.set.Changed(name) {
			log.Warn("a flag has no effect here", zap.String("flag", "--"+name), zap.String("why", why))
		}
	}
}
