// SPDX-License-Identifier: Apache-2.0

// Command bench compares Meshtap with other proxies: `make bench`. See README.md beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/meshtap/meshtap/test/bench/peer"
	"github.com/meshtap/meshtap/test/bench/plan"
	"github.com/meshtap/meshtap/test/bench/report"
	"github.com/meshtap/meshtap/test/bench/rig"
)

const usage = `usage: bench VERB
  run              compare the proxies, and write table, JSON and charts
  peers            fetch the proxies that are missing
  compare OLD NEW  say what changed between two JSON files
  doc JSON         write docs/perf.md and its charts from a JSON file
bench VERB -h tells the flags of a verb`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "run":
		return measure(ctx, args)
	case "peers":
		return peers(ctx, args)
	case "compare":
		return compare(args)
	case "doc":
		return document(args)
	case "generate": // the child of run
		return rig.Generate(ctx, os.Stdin, os.Stdout)
	default:
		return errors.New(usage)
	}
}

// libraryFlags are where the proxies are.
func libraryFlags(f *flag.FlagSet) func() (peer.Library, error) {
	dir := f.String("peers", ".cache/bench-peers", "`folder` of the proxies that were fetched")
	meshtap := f.String("meshtap", "bin/meshtap", "`binary` to measure")
	return func() (l peer.Library, err error) {
		if l.Dir, err = filepath.Abs(*dir); err == nil {
			l.Meshtap, err = filepath.Abs(*meshtap)
		}
		return l, err
	}
}

func measure(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	library := libraryFlags(f)
	rows := f.String("rows", "", "`names` of the rows to measure, separated by commas; empty is all: "+strings.Join(plan.Names(plan.Rows()), " "))
	only := f.String("only", "", "`names` of the proxies to compare, separated by commas; empty is all")
	out := f.String("out", "dist/bench", "`folder` for JSON and charts")
	cfg := rig.Config{Checkout: "."}
	f.IntVar(&cfg.Rounds, "rounds", 5, "`number` of times that each measurement is made")
	f.DurationVar(&cfg.Warm, "warm", time.Second, "`time` of load before each measurement")
	f.DurationVar(&cfg.Measure, "measure", 5*time.Second, "`time` of each measurement")
	f.IntVar(&cfg.Again, "again", 2, "`number` of times that a measurement is made again where others disturbed it")
	f.DurationVar(&cfg.Settle, "settle", 3*time.Second, "`time` that a proxy is left alone before its memory is read")
	f.IntVar(&cfg.ProxyCore, "proxy-core", -1, "`core` of the proxy; -1 is the last")
	f.IntVar(&cfg.GeneratorCore, "generator-core", -1, "`core` of clients and upstreams; -1 is the first")
	f.BoolVar(&cfg.Syscalls, "syscalls", false, "count system calls too, behind the rounds (perf or strace)")
	port := f.Uint("port", 21400, "first of the `ports` used on 127.0.0.1")
	if err := f.Parse(args); err != nil {
		return err
	}
	if cfg.Rounds < 1 || cfg.Measure <= 0 || *port < 1024 || *port > 65000 {
		return errors.New("-rounds and -measure must be more than 0, and -port between 1024 and 65000")
	}
	cfg.Port = uint16(*port)
	var err error
	if cfg.Rows, err = plan.Pick(plan.Rows(), *rows); err != nil {
		return err
	}
	if cfg.Only, err = pickPeers(*only); err != nil {
		return err
	}
	if cfg.Library, err = library(); err != nil {
		return err
	}
	r, failed := rig.Run(ctx, cfg, os.Stderr)
	if r == nil || len(r.Series) == 0 {
		return failed
	}
	return errors.Join(failed, save(r, *out))
}

func pickPeers(names string) ([]string, error) {
	only := strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
	known := map[string]bool{}
	var all []string
	for _, p := range peer.All() {
		known[p.Name] = true
		all = append(all, p.Name)
	}
	for _, name := range only {
		if !known[name] {
			return nil, fmt.Errorf("there is no proxy %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return only, nil
}

// save writes everything that a run leaves.
func save(r *report.Report, dir string) error {
	base := filepath.Join(dir, r.Began.Format("2006-01-02-150405"))
	if err := r.Save(base + ".json"); err != nil {
		return err
	}
	if err := r.Table(os.Stdout, plan.Rows()); err != nil {
		return err
	}
	files, err := r.Draw(plan.Rows(), base, "svg", "png")
	fmt.Printf("\n%s.json\n%s\n", base, strings.Join(files, "\n"))
	return err
}

func peers(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	library := libraryFlags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	l, err := library()
	if err != nil {
		return err
	}
	return peer.Install(ctx, l, os.Stdout)
}

func compare(args []string) error {
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return errors.New("usage: bench compare OLD.json NEW.json")
	}
	older, err := report.Load(f.Arg(0))
	if err != nil {
		return err
	}
	newer, err := report.Load(f.Arg(1))
	if err != nil {
		return err
	}
	return report.Compare(os.Stdout, older, newer)
}

func document(args []string) error {
	f := flag.NewFlagSet("doc", flag.ContinueOnError)
	out := f.String("out", "docs/perf.md", "`file` to write; its charts go into a folder of its name beside it")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("usage: bench doc [-out FILE] RESULT.json")
	}
	r, err := report.Load(f.Arg(0))
	if err != nil {
		return err
	}
	return r.Document(plan.Rows(), *out)
}
