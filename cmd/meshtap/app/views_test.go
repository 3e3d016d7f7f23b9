// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/graph"
)

// What /xds says of sources: one control plane by its name, several sources by what they are; and what is wrong with one.
func TestSourcesAreShown(t *testing.T) {
	t.Parallel()
	one := xds.Status{ControlPlane: "istiod", Target: "10.0.0.1:1", Sources: []xds.SourceStatus{{Source: "ADS (DELTA_GRPC cp)"}}}
	if got := controlPlane(one); got != "istiod" {
		t.Errorf("one stream is shown as %q", got)
	}
	one.ControlPlane = ""
	if got := controlPlane(one); got != "10.0.0.1:1" {
		t.Errorf("one stream without a name is shown as %q", got)
	}
	several := xds.Status{Sources: []xds.SourceStatus{
		{Source: "file /lds", Connected: true, Err: "/lds:1:1: is wrong"}, {Source: "GRPC cp", Err: "refused"}, {Source: "GRPC cp", Connected: true},
	}}
	if got := controlPlane(several); got != "file /lds, GRPC cp" {
		t.Errorf("several are shown as %q", got)
	}
	v := typeView(graph.TypeStatus{Kind: mesh.KindListener, Source: "file /lds", Responded: true}, several)
	if v.State != "rejected" || fmt.Sprint(v.Rejected) != "[{ /lds:1:1: is wrong}]" {
		t.Errorf("a file that is wrong is shown as %+v", v)
	}
	v = typeView(graph.TypeStatus{Kind: mesh.KindCluster, Source: "GRPC cp", Responded: true}, several)
	if v.State != "synced" || len(v.Rejected) > 0 {
		t.Errorf("a stream that is away is shown as %+v", v)
	}
}
