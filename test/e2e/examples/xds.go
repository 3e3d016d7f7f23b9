// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/fakexds"
)

// xdsFiles is the folder below /tmp where an example has its files of resources, and below configs/ where they come from.
const xdsFiles = "xds-files/"

// resourceFiles puts the files of resources where the example looks for them.
func (r *Rig) resourceFiles() {
	r.T.Helper()
	dir := filepath.Join(r.Files, xdsFiles)
	if _, err := os.Stat(dir); err == nil {
		return // the files name each other
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.T.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(Dir(), xdsFiles, "*.yaml"))
	if err != nil || len(files) == 0 {
		r.T.Fatalf("examples: no files of resources: %v", err)
	}
	for _, f := range files {
		r.replace(filepath.Base(f), r.Read(filepath.Join(xdsFiles, filepath.Base(f))))
	}
}

// replace replaces a file of resources by a new one that is renamed over it.
func (r *Rig) replace(name, text string) {
	r.T.Helper()
	at := filepath.Join(r.Files, xdsFiles, name)
	if err := os.WriteFile(at+".new", []byte(text), 0o600); err != nil {
		r.T.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		r.T.Fatal(err)
	}
}

// controlPlane starts the control plane of an example.
func (r *Rig) controlPlane() *fakexds.Server {
	if r.ControlPlane == nil {
		r.ControlPlane = fakexds.Start(r.T)
	}
	return r.ControlPlane
}

func portOf(addr string) int { return int(netip.MustParseAddrPort(addr).Port()) }

// fromFiles: endpoints and routes change with their files; a file that is wrong changes nothing and is named.
func fromFiles(t *testing.T, r *Rig) {
	if r.Envoy {
		return // it reads no file again that is not renamed, and says nothing of one that is wrong at /xds
	}
	eds := r.Read(filepath.Join(xdsFiles, "eds.yaml"))
	r.replace("eds.yaml", strings.Replace(eds, fmt.Sprint(r.A.Addr().Port()), fmt.Sprint(r.B.Addr().Port()), 1))
	moved := Request{Name: "the endpoint has moved", Path: "/moved", Want: Want{Status: 200, Line: "b GET /moved localhost"}}
	r.until(t, r.B, moved)

	rds := r.Read(filepath.Join(xdsFiles, "rds.yaml"))
	r.replace("rds.yaml", strings.Replace(rds, "{prefix: /}", "{prefx: /}", 1))
	r.Admin.Until("/xds", func(_ int, body string) bool {
		return strings.Contains(body, `did you mean \"prefix\"?`) || strings.Contains(body, "rds.yaml:9:")
	})
	moved.Check(t, r.Do(moved))
	r.replace("rds.yaml", rds)
	r.Admin.Until("/xds", func(int, string) bool { return r.Admin.XDS().Of("route_configuration").State == "synced" })
}

// until makes requests until an origin has got one.
func (r *Rig) until(t *testing.T, o *origin.HTTP, q Request) {
	t.Helper()
	for before := o.Requests.Load(); ; {
		a := r.Do(q)
		if o.Requests.Load() > before {
			q.Check(t, a)
			return
		}
		if a.Status != 200 {
			t.Fatalf("%s: status %d", q.Name, a.Status)
		}
	}
}
