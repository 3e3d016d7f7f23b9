// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("test/e2e DID NOT RUN: it is left out with -short")
		os.Exit(0)
	}
	os.Exit(sidecar.Main(m))
}

// soak reports whether the long forms of the tests are wanted.
func soak() bool { return os.Getenv("SOAK") != "" }

// until waits for something that is in memory.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for limit := time.After(sidecar.Hang); !there(); {
		select {
		case <-pace.C:
		case <-limit:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// neverTimesOut lets the requests of static.yaml last for ever.
func neverTimesOut(text string) string {
	return strings.Replace(text, "route: {cluster: web}", "route: {cluster: web, timeout: 0s}", 1)
}
