// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// "meshtap events verify" proves of a real run that every event is where the counters say, with drops and without; an
// event taken out of the capture, wherever it stood, is missed, and it alone.
func TestEventsVerify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		memory string
		drops  bool
	}{{"without drops", "67108864", false}, {"with drops", "4194304", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := tapped(t, c.memory)
			l := load.Start(t, load.Options{Workers: 8, Rate: 4000, Addr: func() string { return r.Addr("") }})
			if c.drops {
				untilLedger(r, func(now ledger) bool { return now.acked > 200 })
				r.Bus.Kill()
				untilLedger(r, func(now ledger) bool { return now.dropped > 100 })
				r.Bus.Revive()
			}
			untilLedger(r, func(now ledger) bool { return now.acked > 2000 })
			made := l.Stop().Requests
			untilLedger(r, func(now ledger) bool { return now.produced == made && now.pending == 0 })
			r.Do(examples.Request{Name: "last"}) // in front of it, what was lost last is told
			want := untilLedger(r, func(now ledger) bool { return now.produced == made+1 && now.pending == 0 })

			// The proxy chooses by the same expressions.
			for expression, lines := range map[string]int{`http.response.status_code == 200 && meshtap.cluster != ""`: 3, `http.response.status_code == 201`: 0} {
				out := meshtap(t, 0, "tap", "--admin", r.Admin.Addr(), "-f=false", "-n", "3", "-o", "jsonl", "--not", "--type", "lost", "--filter", expression)
				if got := bytes.Count(out, []byte("\n")); got != lines {
					t.Errorf("%s: %d events, want %d", expression, got, lines)
				}
			}

			on := []string{"--bus", r.Bus.URL(), "--stream", "meshtap"}
			got := verifyEvents(t, r, 0, on...)
			if b := got.Boots[0]; !got.OK || int64(b.Received) != want.acked || int64(b.Produced) != made+1 || sum(b.Dropped) != sum(b.Told) ||
				(sum(b.Dropped) > 0) != c.drops || int64(sum(b.Dropped)) != want.dropped || b.Missing+b.Extra+b.Unexplained > 0 || b.Note != "" {
				t.Errorf("%+v; the proxy says %+v", got, want)
			}
			capture := listed(t, r, on)
			for name, i := range map[string]int{"the first": 0, "one in the middle": len(capture) / 2, "the last": len(capture) - 1} {
				for i > 0 && bytes.Contains(capture[i], []byte("io.meshtap.lost")) {
					i--
				}
				path := filepath.Join(t.TempDir(), "capture.jsonl")
				rest := append(append([][]byte(nil), capture[:i]...), capture[i+1:]...)
				if err := os.WriteFile(path, append(bytes.Join(rest, []byte("\n")), '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
				got := verifyEvents(t, r, 1, path)
				if b := got.Boots[0]; got.OK || b.Missing != 1 || b.Extra != 0 || int64(b.Received) != want.acked-1 {
					t.Errorf("%s was taken out: %+v", name, got)
				}
			}
		})
	}
}

// verified is the answer of "meshtap events verify -o json".
type verified struct {
	OK    bool
	Boots []struct {
		Produced, Received, Pending, Missing, Extra, Unexplained uint64
		Dropped, Told                                            map[string]uint64
		Note                                                     string
	}
}

func sum(counts map[string]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// verifyEvents runs the command, which must end with a code and name one run.
func verifyEvents(t *testing.T, r *examples.Rig, code int, args ...string) (v verified) {
	t.Helper()
	out := meshtap(t, code, append([]string{"events", "verify", "--admin", r.Admin.Addr(), "-o", "json"}, args...)...)
	if err := json.Unmarshal(out, &v); err != nil || len(v.Boots) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	table := meshtap(t, code, append([]string{"events", "verify", "--admin", r.Admin.Addr()}, args...)...)
	if says := map[int]string{0: "adds up", 1: "DOES NOT"}[code]; !strings.Contains(string(table), says) {
		t.Errorf("the table does not say %q:\n%s", says, table)
	}
	return v
}

// listed are all events of the bus as lines.
func listed(t *testing.T, r *examples.Rig, on []string) [][]byte {
	t.Helper()
	out := meshtap(t, 0, append([]string{"events", "ls", "--since", "24h", "--limit", "0", "-o", "jsonl"}, on...)...)
	return bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
}

func meshtap(t *testing.T, code int, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), sidecar.Meshtap(t), args...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
	var notes strings.Builder
	cmd.Stderr = &notes
	out, err := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("meshtap %s ends with %d, %v:\n%s%s", fmt.Sprint(args), got, err, out, notes.String())
	}
	return out
}
