// SPDX-License-Identifier: Apache-2.0

package logform_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/logform"
)

func entry() *logform.Entry {
	return &logform.Entry{
		Time: time.Date(2026, 3, 4, 5, 6, 7, 8_009_010, time.UTC), Level: "warning", Logger: "xds",
		Message: "a \"b\"\nc", File: "xds/manager.go", Line: 12, Func: "Run",
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	for form, want := range map[string]string{
		"[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v": `[2026-03-04 05:06:07.008][0][warning][xds] [xds/manager.go:12] a "b"\x0ac`,
		"%y%m%d %H:%M:%S %R %D %I %p %r":          "260304 05:06:07 05:06 03/04/26 05 AM 05:06:07 AM",
		"%f %F %E %z %a %A %b %B":                 "008009 008009010 1772600767 +00:00 Wed Wednesday Mar March",
		"%L %s %@ %! %_ %j":                       `W manager.go xds/manager.go:12 Run a "b"\x0ac a \"b\"\nc`,
		"100%% %^%$%q %":                          "100% %q %",
		"%P":                                      fmt.Sprint(os.Getpid()),
		"":                                        "",
	} {
		if got := string(logform.Parse(form).Append(nil, entry())); got != want+"\n" {
			t.Errorf("%s:\n%q\nwant\n%q", form, got, want+"\n")
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	f, err := logform.ParseJSON(`{"Time":"%Y-%m-%dT%T.%F","Level":"%l","Message":"%j","n":3}`)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(f.Append(nil, entry()), &got); err != nil || got["Message"] != "a \"b\"\nc" || got["n"] != 3.0 {
		t.Errorf("%v, %v", got, err)
	}
	for _, flag := range []string{"%v", "%_"} {
		if _, err := logform.ParseJSON(flag); err == nil || !strings.Contains(err.Error(), flag+", which is not JSON; use %j") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func FuzzForms(f *testing.F) {
	f.Add("%v %j", "a\nb")
	f.Add("%", "\xff")
	f.Fuzz(func(t *testing.T, form, message string) {
		if strings.ContainsAny(form, "\n\r") {
			return
		}
		e := entry()
		e.Message = message
		got := string(logform.Parse(form).Append(nil, e))
		if strings.Count(got, "\n") != 1 {
			t.Errorf("%q breaks the line: %q", message, got)
		}
	})
}
