// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/mesh"
)

// TestExplainAll keeps what is said about every word.
func TestExplainAll(t *testing.T) {
	t.Parallel()
	out, errOut, code := execute(t.Context(), append([]string{"explain"}, explainable()...)...)
	if code != 0 || errOut != "" {
		t.Fatalf("ended with %d: %s", code, errOut)
	}
	golden(t, "testdata/explain.txt", []byte(out))
}

// TestExplainFlags: each response flag is explained under Envoy's names, and with the statuses that it is answered with.
func TestExplainFlags(t *testing.T) {
	t.Parallel()
	for f := mesh.Flags(1); f.String() != "" && f <= mesh.FlagDO; f <<= 1 {
		e, ok := lookUp(f.String())
		if !ok || e.Kind != kindFlag {
			t.Errorf("%s is not explained", f)
			continue
		}
		if long := string(f.AppendLong(nil)); e.Long != long {
			t.Errorf("%s is called %s, not %s", f, e.Long, long)
		}
	}
	for k := mesh.NoRoute; k <= mesh.InternalError; k++ {
		info := k.Info()
		e, ok := lookUp(k.String())
		switch {
		case !ok:
			t.Errorf("%s is not explained", k)
		case info.Flag != 0 && e.Name != info.Flag.String():
			t.Errorf("%s is explained with %s, not with %s", k, e.Name, info.Flag)
		case e.Status != info.Status:
			t.Errorf("%s: status %d, not %d", k, e.Status, info.Status)
		}
	}
}

// TestExplainWhatIsSet: what is said never to be set is nowhere set, and what is set is not said to be.
func TestExplainWhatIsSet(t *testing.T) {
	t.Parallel()
	set := map[string]bool{}
	for k := mesh.NoRoute; k <= mesh.InternalError; k++ {
		set[k.Info().Flag.String()] = true
	}
	flag := regexp.MustCompile(`mesh\.Flag([A-Z]+)\b`)
	err := filepath.WalkDir("../../proxy", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range flag.FindAllSubmatch(src, -1) {
			set[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range flagWords {
		if said := !strings.Contains(e.Cause, notYet); said != set[e.Name] {
			t.Errorf("%s is set: %v, and what is said of it: %v", e.Name, set[e.Name], said)
		}
	}
}

// TestExplainReasons: the words that circuits, hosts and lost events have for their reasons are explained.
func TestExplainReasons(t *testing.T) {
	t.Parallel()
	words := []string{
		circuit.ReasonConsecutive, circuit.ReasonErrorRate, circuit.ReasonSlowRate, circuit.ReasonOpenExpired, circuit.ReasonProbeFailed,
		circuit.ReasonProbesSucceeded, circuit.ReasonConsecutive5xx, circuit.ReasonConsecutiveGateway, circuit.ReasonConsecutiveLocal, circuit.ReasonExpired, circuit.ReasonActiveCheck,
		eventtap.RingFull.String(), eventtap.SinkFull.String(), eventtap.Refused.String(), eventtap.Shutdown.String(), "too_slow",
		"accepted", "rejected", "timeout", "warming", "never", "synced",
	}
	for s := mesh.CircuitClosed; s <= mesh.CircuitHalfOpen; s++ {
		words = append(words, s.String())
	}
	for _, w := range words {
		if _, ok := lookUp(w); !ok {
			t.Errorf("%s is not explained", w)
		}
	}
}

// TestExplainNames: no name stands for two words.
func TestExplainNames(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, e := range explanations {
		for _, n := range append([]string{e.Name, e.Long}, e.Also...) {
			key := strings.ToLower(n)
			if other, ok := seen[key]; ok && n != "" {
				t.Errorf("%s is a name of %s and of %s", n, other, e.Name)
			}
			seen[key] = e.Name
		}
		if e.Cause == "" || e.Next == "" {
			t.Errorf("%s says nothing", e.Name)
		}
	}
}

// TestExplainAdvice: the commands and flags that explanations advise exist.
func TestExplainAdvice(t *testing.T) {
	t.Parallel()
	command := regexp.MustCompile(`meshtap ([a-z]+(?: (?:ls|add|rm|validate)\b)?)((?: -[-a-z]+ [A-Za-z0-9,]+)*)`)
	n := 0
	for _, e := range explanations {
		for _, m := range command.FindAllStringSubmatch(e.Cause+" "+e.Next, -1) {
			n++
			cmd, rest, err := newRoot().Find(strings.Fields(m[1]))
			if err != nil || len(rest) > 0 && cmd.Name() != "explain" || !cmd.HasParent() {
				t.Errorf("%s: there is no %q", e.Name, m[0])
				continue
			}
			if err := cmd.ParseFlags(strings.Fields(m[2])); err != nil {
				t.Errorf("%s: %q: %v", e.Name, m[0], err)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were found", n)
	}
}
