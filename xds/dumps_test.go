// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/resource"
)

func TestDump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := dynamic()
		cfg.Static = []Static{decodeStatic(t, resource.ClusterType, fakexds.StaticCluster("static", two))}
		r := startRig(t, cfg, nil)
		defer r.stop()
		r.stream.out <- ads.Connected{}
		bad := fakexds.EDSCluster("bad")
		bad.LbPolicy = clusterpb.Cluster_LbPolicy(77)
		r.send(resource.ClusterType, "1", fakexds.EDSCluster("a"), fakexds.EDSCluster("warming"), bad)
		r.send(resource.EndpointsType, "2", fakexds.Endpoints("a", one))
		r.send(resource.ListenerType, "3", fakexds.Listener("L", one, "r"))
		r.send(resource.RouteType, "4", fakexds.Routes("r", "a"))
		r.said()
		in, err := r.m.Dump(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, list := range [][]dump.Entry{in.Clusters, in.Listeners, in.Routes} {
			for _, e := range list {
				got = append(got, fmt.Sprintf("%s static=%v live=%s next=%s failed=%v", e.Name, e.Static, version(e.Live), version(e.Next),
					e.Failure != nil))
			}
		}
		for _, e := range in.Endpoints {
			got = append(got, fmt.Sprintf("endpoints %s static=%v %s", e.Cluster, e.Static, version(e.Resource)))
		}
		want := `a static=false live=1 next=- failed=false
bad static=false live=- next=- failed=true
static static=true live= next=- failed=false
warming static=false live=- next=1 failed=false
L static=false live=3 next=- failed=false
r static=false live=4 next=- failed=false
endpoints a static=false 2
endpoints static static=true -`
		if strings.Join(got, "\n") != want {
			t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
		}
		if in.ClusterVersion != "" || in.ListenerVersion != "3" {
			t.Errorf("versions %q %q", in.ClusterVersion, in.ListenerVersion)
		}
		out, err := dump.Render(in, dump.Options{Endpoints: true, Redactor: dump.NewRedactor([]byte("key"))})
		if err != nil || !strings.Contains(string(out), `"dynamic_warming_clusters"`) {
			t.Errorf("error %v:\n%s", err, out)
		}
	})
}

func version(r *dump.Resource) string {
	if r == nil {
		return "-"
	}
	return r.Version
}
