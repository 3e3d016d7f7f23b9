// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// setUp gives each script a home of its own, one time zone, and the recordings.
func setUp(e *testscript.Env) error {
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
	e.Setenv("TZ", "UTC")
	e.Setenv("TERM", "xterm")
	e.Values[runningKey{}] = &running{}
	return os.CopyFS(filepath.Join(e.WorkDir, "recorded"), os.DirFS("testdata/recorded"))
}

// exitsWith is "code N PROGRAM ARG...": the program ends with this code.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	if got := exitCode(ts, ts.Exec(args[1], args[2:]...)); strconv.Itoa(got) != args[0] {
		ts.Fatalf("it ended with %d, not %s\n%s%s", got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func exitCode(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Check(err)
	return -1
}

// command prepares a program of the script's PATH with the script's environment.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path := args[0]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, args[0])); err == nil {
			path = filepath.Join(dir, args[0])
			break
		}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "TZ", "TERM", "NO_COLOR", "COLUMNS"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	return cmd
}

// onTerminal is "tty COLUMNS FILE PROGRAM ARG...": the program writes its standard output to a terminal, and what came
// there is in FILE, with ESC written as "^[".
func onTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: tty COLUMNS FILE PROGRAM ARG...")
	}
	columns, err := strconv.ParseUint(args[0], 10, 16)
	ts.Check(err)
	mine, its, err := openTerminal(uint16(columns))
	ts.Check(err)
	defer mine.Close()
	cmd := command(ts, args[2:])
	cmd.Stdout = its
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&got, mine) // it ends with EIO when the other end is closed
	}()
	err = cmd.Run()
	its.Close()
	<-read
	ts.Check(err)
	for line := range strings.SplitSeq(colours.ReplaceAllString(got.String(), ""), "\r\n") {
		if n := utf8.RuneCountInString(line); n > int(columns) {
			ts.Fatalf("a line of %d columns: %s", n, line)
		}
	}
	text := strings.NewReplacer("\r\n", "\n", "\x1b", "^[").Replace(got.String())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
}

var colours = regexp.MustCompile(`\x1b\[[0-9]*m`)

// openTerminal returns both ends of a pseudo-terminal (pty(7)).
func openTerminal(columns uint16) (mine, its *os.File, err error) {
	mine, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(mine.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err == nil {
		its, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	return mine, its, err
}

// recordedProxy is "proxy DIR...": for each directory an administration server at DIR.sock answers /NAME with the file
// DIR/NAME, and with DIR/NAME.2 from the second time on where that exists. {{ago "5m"}} in a file is a time in the past.
// /events goes on until the reader leaves unless it is asked not to follow. What is sent there is in
// DIR/received, unless DIR/refusal says why it is refused.
func recordedProxy(ts *testscript.TestScript, neg bool, args []string) {
	for _, dir := range args {
		dir := ts.MkAbs(dir)
		l, err := net.Listen("unix", dir+".sock")
		ts.Check(err)
		var mu sync.Mutex
		asked := map[string]int{}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := strings.TrimPrefix(r.URL.Path, "/")
			if r.Method != http.MethodGet {
				if why, err := os.ReadFile(filepath.Join(dir, "refusal")); err == nil {
					http.Error(w, string(why), http.StatusBadRequest)
					return
				}
				body, _ := io.ReadAll(r.Body)
				err := os.WriteFile(filepath.Join(dir, "received"), fmt.Appendf(nil, "%s %s %s\n", r.Method, r.URL.Path, body), 0o644)
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				}
				return
			}
			mu.Lock()
			asked[name]++
			n := asked[name]
			mu.Unlock()
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path + ".2"); err == nil && n > 1 {
				path += ".2"
			}
			body, err := expand(path)
			if err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
			_, _ = w.Write(body)
			if name == "events" && r.FormValue("follow") != "false" {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
		})}
		go s.Serve(l)
		ts.Defer(func() { s.Close() })
	}
}

func expand(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, []byte("{{ago")) {
		return b, err
	}
	t, err := template.New("").Funcs(template.FuncMap{"ago": func(s string) (string, error) {
		d, err := time.ParseDuration(s)
		return time.Now().Add(-d).UTC().Format(time.RFC3339), err
	}}).Parse(string(b))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, nil)
	return out.Bytes(), err
}

// embeddedBus is "bus FILE...": an event bus at $BUS holds each line of the files as a message.
func embeddedBus(ts *testscript.TestScript, _ bool, args []string) {
	b := newBus(ts, "")
	ts.Defer(b.close)
	ts.Setenv("BUS", b.url)
	for _, file := range args {
		for line := range strings.Lines(ts.ReadFile(file)) {
			b.publish(ts, []byte(strings.TrimSuffix(line, "\n")))
		}
	}
}

// startServer is "start PROGRAM ARG...": it returns when the log of the program says that it has started.
func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: start PROGRAM ARG...")
	}
	cmd := command(ts, args)
	log, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	started := make(chan bool, 1)
	var text bytes.Buffer
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			fmt.Fprintln(&text, lines.Text())
			if strings.Contains(lines.Text(), "started") && strings.Contains(lines.Text(), "initialized") { // in whatever form
				started <- true
			}
		}
		close(started)
		ended <- cmd.Wait()
	}()
	if !<-started {
		<-ended
		ts.Fatalf("it has ended: %s", text.String())
	}
	stop := sync.OnceValues(func() (string, error) {
		_ = cmd.Process.Signal(os.Interrupt)
		err := <-ended
		return text.String(), err
	})
	ts.Defer(func() { _, _ = stop() })
	ts.Value(runningKey{}).(*running).stop = stop
}

// running is what start has started, the value of a script under a runningKey.
type (
	running struct {
		stop func() (log string, err error)
	}
	runningKey struct{}
)

// interruptServer is "interrupt CODE": an interrupt ends what was started, with this code. What it logged is in the file
// log.
func interruptServer(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value(runningKey{}).(*running)
	if neg || r.stop == nil || len(args) != 1 {
		ts.Fatalf("usage: interrupt CODE, after start")
	}
	log, err := r.stop()
	if got := exitCode(ts, err); strconv.Itoa(got) != args[0] {
		ts.Fatalf("it ended with %d, not %s", got, args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs("log"), []byte(log), 0o644))
}

// interrupted is "interrupted CODE PROGRAM ARG...": an interrupt after the first line that the program prints ends it with
// this code. What it said on standard error is in the file stderr-of-it.
func interrupted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupted CODE PROGRAM ARG...")
	}
	cmd := command(ts, args[1:])
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		ts.Fatalf("it prints nothing: %v", lines.Err())
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	for lines.Scan() { // until it has ended
	}
	if got := exitCode(ts, cmd.Wait()); strconv.Itoa(got) != args[0] {
		ts.Fatalf("it ended with %d, not %s", got, args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs("stderr-of-it"), errOut.Bytes(), 0o644))
}
