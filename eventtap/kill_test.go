// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/spool"
)

var killRounds = flag.Int("kill.rounds", 15, "how often TestKilled kills a process")

// remote is a sink that writes to the bus of another process, and is acknowledged batch by batch.
type remote struct {
	addr string
	c    net.Conn
}

func (*remote) Caps() Caps { return Caps{Encoding: Proto, InFlight: 1} }

func (s *remote) Open(ctx context.Context) (err error) {
	s.c, err = new(net.Dialer).DialContext(ctx, "unix", s.addr)
	return err
}

func (s *remote) Close(context.Context) error { return s.c.Close() }

func (s *remote) Send(_ context.Context, b *Batch, done func(error)) {
	out := binary.AppendUvarint(nil, uint64(len(b.Events)))
	for _, e := range b.Events {
		out = append(binary.AppendUvarint(out, uint64(len(e.Body))), e.Body...)
	}
	if _, err := s.c.Write(out); err != nil {
		done(errors.Join(err, ErrReopen))
		return
	}
	if _, err := s.c.Read(make([]byte, 1)); err != nil {
		done(errors.Join(err, ErrReopen))
		return
	}
	done(nil)
}

// TestKilledChild is the process that TestKilled kills: it produces events as fast as the disk takes them, and says from
// time to time how many are on the disk or acknowledged.
func TestKilledChild(t *testing.T) {
	where := os.Getenv("MESHTAP_KILLED_CHILD")
	if where == "" {
		t.Skip("this is a part of TestKilled")
	}
	dir, addr, _ := strings.Cut(where, "|")
	cfg := spooled(dir)
	cfg.Spool.Commit = spool.None // a killed process loses nothing that it has written
	if os.Getpid()%2 == 0 {
		cfg.Spool.Commit = spool.Interval
	}
	tap := newTap(t, cfg, &remote{addr: addr})
	fmt.Printf("boot %s\n", tap.batcher.boot)
	finish := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(finish)
	}()
	for n := 0; ; n++ {
		select {
		case <-finish:
			endTap(t, tap, 20*time.Second)
			return
		default:
		}
		for k := range 100 {
			tap.Observe(outcomeOf(fmt.Sprint("cluster-", k%3), n*100+k))
		}
		pace(t, tap)
		if a := tap.Account().Sinks[0]; n%3 == 0 {
			fmt.Printf("safe %d\n", a.Acked+a.Spool.Stored-a.Recovered)
		}
		time.Sleep(time.Millisecond)
	}
}

// ledger is a bus that breaks connections now and then, and keeps the numbers of what it was sent.
type ledger struct {
	mu     sync.Mutex
	calm   bool
	r      *rand.Rand
	came   map[string]map[uint64]bool // by boot and number in the stream
	lost   map[string]uint64
	again  int
	broken []error
}

func (l *ledger) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return
		}
		for range n {
			size, err := binary.ReadUvarint(r)
			if err != nil || size > event.MaxSize {
				return
			}
			b := make([]byte, size)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			l.take(b)
		}
		l.mu.Lock()
		bad := !l.calm && l.r.IntN(20) == 0
		l.mu.Unlock()
		if bad {
			return // what came is not acknowledged
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return
		}
	}
}

func (l *ledger) take(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var e event.Event
	if err := e.DecodeProto(b); err != nil {
		l.broken = append(l.broken, err)
		return
	}
	boot := string(e.BootID)
	if e.Kind == event.Lost {
		l.lost[boot] += e.Uint(event.Count)
		return
	}
	if l.came[boot] == nil {
		l.came[boot] = map[uint64]bool{}
	}
	if l.came[boot][e.StreamSeq] {
		l.again++
	}
	l.came[boot][e.StreamSeq] = true
}

// TestKilled kills a process with SIGKILL at random moments, over and over on the same spool, and holds the ledger of the
// bus against what the processes said before they died: every event that was on the disk comes, no number in the middle of
// a run is missing without being told, nothing broken comes, and what comes twice is a batch for each death and each
// broken connection (F82).
func TestKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	dir := t.TempDir()
	addr := filepath.Join(dir, "bus")
	ln, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bus := &ledger{r: rand.New(rand.NewPCG(seed, 1)), came: map[string]map[uint64]bool{}, lost: map[string]uint64{}}
	r := rand.New(rand.NewPCG(seed, 2))
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { bus.serve(c) })
		}
	})
	where := filepath.Join(dir, "spool") + "|" + addr
	safe := map[string]uint64{}
	for range *killRounds {
		boot, n := runChild(t, where, time.Duration(20+r.IntN(300))*time.Millisecond)
		safe[boot] = n
	}
	bus.mu.Lock()
	bus.calm = true
	bus.mu.Unlock()
	runChild(t, where, 0)
	ln.Close()
	conns.Wait()
	checkLedger(t, bus, safe)
}

// runChild runs a process and kills it after some time, or, with 0, lets it end. It returns its boot and how many events
// it said to be safe.
func runChild(t *testing.T, where string, after time.Duration) (boot string, safe uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$", "-test.v")
	cmd.Env = append(os.Environ(), "MESHTAP_KILLED_CHILD="+where)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var rest strings.Builder
	for sc := bufio.NewScanner(out); sc.Scan(); {
		word, value, _ := strings.Cut(sc.Text(), " ")
		switch word {
		case "boot":
			boot = value
			if after > 0 {
				time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			}
		case "safe":
			if safe, err = strconv.ParseUint(value, 10, 64); err != nil {
				t.Error(err)
			}
			if after == 0 {
				stdin.Close()
			}
		default:
			rest.WriteString(sc.Text() + "\n")
		}
	}
	err = cmd.Wait()
	if after == 0 && err != nil || boot == "" {
		t.Fatalf("%v\n%s", err, rest.String())
	}
	return boot, safe
}

func checkLedger(t *testing.T, bus *ledger, safe map[string]uint64) {
	t.Helper()
	bus.mu.Lock()
	defer bus.mu.Unlock()
	if len(bus.broken) > 0 {
		t.Errorf("%d broken events came, the first: %v", len(bus.broken), bus.broken[0])
	}
	total := 0
	for boot, n := range safe {
		came := bus.came[boot]
		var most uint64
		for seq := range came {
			most = max(most, seq)
		}
		if missing := most - uint64(len(came)); missing != bus.lost[boot] {
			t.Errorf("run %s: of %d numbers %d are missing, and %d are told", boot, most, missing, bus.lost[boot])
		}
		if uint64(len(came))+bus.lost[boot] < n {
			t.Errorf("run %s: %d were safe, %d came", boot, n, len(came))
		}
		total += len(came)
	}
	t.Logf("figure: %d events of %d killed runs, %d came twice", total, len(safe), bus.again)
	if total == 0 {
		t.Error("nothing came")
	}
}
