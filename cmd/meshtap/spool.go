// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/spool"
)

func newSpool() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "spool COMMAND",
		Short:   "Look into the disk on which the event tap keeps events",
		Example: `  meshtap spool ls /var/lib/meshtap/spool`,
		Args:    cli.KnownVerb,
		RunE:    help,
	}
	cmd.AddCommand(newSpoolList(), newSpoolVerify(), newSpoolDrain())
	return cmd
}

// spoolFlags are the flags of the verbs below "meshtap spool".
type spoolFlags struct {
	cli.Output
	keyFile string
	keep    bool
	count   int
}

func (f *spoolFlags) addKey(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "`file`: the key of an encrypted spool")
}

func newSpoolList() *cobra.Command {
	f := &spoolFlags{}
	cmd := &cobra.Command{
		Use:   "ls DIRECTORY",
		Short: "List the spools below a directory, and what waits in them",
		Example: `  meshtap spool ls /var/lib/meshtap/spool
  meshtap spool ls /var/lib/meshtap/spool -o json`,
		Args: someArgs(1, 1, "the directory of the configuration"),
	}
	f.Output.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(func(_ context.Context, cmd *cobra.Command, args []string) error { return f.list(cmd, args[0], false) })
	return cmd
}

func newSpoolVerify() *cobra.Command {
	f := &spoolFlags{}
	cmd := &cobra.Command{
		Use:   "verify DIRECTORY",
		Short: "Read every event of the spools, and say what is missing",
		Long: `
It changes nothing, and may run beside a proxy. Without the key of an encrypted
spool it checks everything but what the events say. It ends with 5 where
something is missing.`,
		Example: `  meshtap spool verify /var/lib/meshtap/spool`,
		Args:    someArgs(1, 1, "the directory of the configuration"),
	}
	f.addKey(cmd)
	f.Output.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(func(_ context.Context, cmd *cobra.Command, args []string) error { return f.list(cmd, args[0], true) })
	return cmd
}

// spoolJSON is a spool as programs read it. The last four are there for verify alone, or where something is wrong.
type spoolJSON struct {
	Name      string  `json:"name"`              // the name of the sink
	InUse     bool    `json:"in_use"`            // whether a proxy has it open
	Pending   uint64  `json:"pending"`           // events that are not delivered
	Bytes     int64   `json:"bytes"`             // the room that it takes on the disk
	Segments  int     `json:"segments"`          // the files that it consists of
	Encrypted bool    `json:"encrypted"`         // whether events are encrypted
	Events    *uint64 `json:"events,omitempty"`  // events that can be read, delivered or not
	Missing   *uint64 `json:"missing,omitempty"` // events that cannot be read
	Torn      *int64  `json:"torn,omitempty"`    // bytes at the end that a crash has left
	Error     string  `json:"error,omitempty"`   // what else is wrong
}

// list prints what is known of the spools below a directory.
func (f *spoolFlags) list(cmd *cobra.Command, dir string, deep bool) error {
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	key, err := eventtap.ReadKey(f.keyFile)
	if err != nil {
		return cli.Errorf(cli.ExitFailure, "%v", err)
	}
	names, err := spoolsBelow(dir)
	if err != nil {
		return err
	}
	list, bad := []spoolJSON{}, false
	for _, name := range names {
		r, err := spool.Inspect(filepath.Join(dir, name), deep, key)
		if err != nil {
			return cli.Errorf(cli.ExitFailure, "%v", err)
		}
		v := viewSpool(name, r, deep)
		bad = bad || deep && (v.Error != "" || *v.Missing > 0)
		list = append(list, v)
	}
	if s.Format == cli.JSON {
		err = s.JSON(document{"spools": list})
	} else {
		printSpools(s, list, deep)
	}
	if err = cmp.Or(err, s.Flush()); err == nil && bad {
		return cli.Quiet(cli.ExitProblems)
	}
	return err
}

// spoolsBelow returns the names of the spools below a directory.
func spoolsBelow(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &cli.Error{Exit: cli.ExitFailure, Msg: dir + " is not there", Hint: "it is spool.directory of the tap's configuration"}
	}
	if err != nil {
		return nil, cli.Errorf(cli.ExitFailure, "%v", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, &cli.Error{Exit: cli.ExitFailure, Msg: "there is no spool below " + dir, Hint: "it is spool.directory of the tap's configuration"}
	}
	return names, nil
}

func viewSpool(name string, r *spool.Report, deep bool) spoolJSON {
	v := spoolJSON{Name: name, InUse: r.InUse, Pending: r.Pending(), Segments: len(r.Segments)}
	var events, missing uint64
	var torn int64
	for _, g := range r.Segments {
		v.Bytes += g.Bytes
		v.Encrypted = v.Encrypted || g.Encrypted
		events, missing = events+g.Records, missing+g.Missing
		if g.Torn {
			torn += g.Broken
		}
		if g.Err != nil {
			v.Error = g.Name + ": " + g.Err.Error()
		}
	}
	if r.CursorLost && len(r.Segments) > 0 {
		v.Error = "the cursor cannot be read: everything would be delivered again"
	}
	if deep {
		v.Events, v.Missing, v.Torn = &events, &missing, &torn
	}
	return v
}

func printSpools(s *cli.Screen, list []spoolJSON, deep bool) {
	cols := []cli.Column{{Name: "SINK"}, {Name: "IN USE"}, {Name: "PENDING", Right: true}, {Name: "BYTES", Right: true},
		{Name: "SEGMENTS", Right: true}, {Name: "ENCRYPTED"}}
	if deep {
		cols = append(cols, cli.Column{Name: "EVENTS", Right: true}, cli.Column{Name: "MISSING", Right: true},
			cli.Column{Name: "TORN", Right: true}, cli.Column{Name: "PROBLEM", Flex: 20})
	}
	g := cli.NewGrid(cols...)
	word := map[bool]string{true: "yes", false: "no"}
	for _, v := range list {
		row := []cli.Cell{cli.T(v.Name), cli.T(word[v.InUse]), cli.T(strconv.FormatUint(v.Pending, 10)),
			cli.T(strconv.FormatInt(v.Bytes, 10)), cli.T(strconv.Itoa(v.Segments)), cli.T(word[v.Encrypted])}
		if deep {
			row = append(row, cli.T(strconv.FormatUint(*v.Events, 10)), cli.T(strconv.FormatUint(*v.Missing, 10)),
				cli.T(strconv.FormatInt(*v.Torn, 10)), cli.T(v.Error))
		}
		g.Row(row...)
	}
	g.Print(s)
}

func newSpoolDrain() *cobra.Command {
	f := &spoolFlags{}
	cmd := &cobra.Command{
		Use:   "drain DIRECTORY",
		Short: "Print the events that wait in a spool, and take them out",
		Long: `
It is for a spool whose proxy does not come back: the directory of one sink,
as spool ls names them. There is one JSON event per line. What was written to
standard output counts as delivered. A spool that a proxy has open is refused.`,
		Example: `  meshtap spool drain /var/lib/meshtap/spool/kafka > events.jsonl
  meshtap spool drain /var/lib/meshtap/spool/kafka --keep -n 10`,
		Args: someArgs(1, 1, "the directory of one sink"),
	}
	f.addKey(cmd)
	cmd.Flags().BoolVar(&f.keep, "keep", false, "print the events only, and leave them in the spool")
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "`number`: end after so many events")
	cmd.RunE = verb(f.drain)
	return cmd
}

// drain prints what waits in a spool.
func (f *spoolFlags) drain(ctx context.Context, cmd *cobra.Command, args []string) error {
	if f.count < 0 {
		return cli.Usage("", "-n %d: a count is at least 1", f.count)
	}
	key, err := eventtap.ReadKey(f.keyFile)
	if err != nil {
		return cli.Errorf(cli.ExitFailure, "%v", err)
	}
	if _, err := os.Stat(filepath.Join(args[0], "cursor")); err != nil {
		return &cli.Error{Exit: cli.ExitFailure, Msg: args[0] + " is not a spool", Hint: "meshtap spool ls shows those below a directory"}
	}
	d, err := eventtap.OpenDrain(args[0], key)
	if err != nil {
		return cli.Errorf(cli.ExitFailure, "%v", err)
	}
	n, err := drainTo(ctx, cmd.OutOrStdout(), d, f.count)
	if !f.keep && err == nil {
		err = d.Taken()
	}
	err = errors.Join(err, d.Close())
	line := fmt.Sprintf("%s printed, %d missing", events(n), d.Missing())
	if f.keep {
		line += "; they are still in the spool"
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "meshtap: %s\n", line)
	if err != nil {
		return cli.Errorf(cli.ExitFailure, "%v", err)
	}
	return nil
}

func drainTo(ctx context.Context, w io.Writer, d *eventtap.Drain, most int) (n uint64, err error) {
	for most == 0 || n < uint64(most) {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		js, err := d.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if !json.Valid(js) {
			return n, fmt.Errorf("event %d of the spool is no JSON", n+1)
		}
		if _, err := w.Write(append(js, '\n')); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
