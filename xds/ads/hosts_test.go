// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"fmt"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/resource"
)

// Virtual hosts come with other names that they answer to; one without a body says that there is none, unless we have it:
// then it is a sign of life.
func TestDeltaHosts(t *testing.T) {
	t.Parallel()
	d := newDelta(Config{Types: []string{resource.HostType}, Random: func() float64 { return 0 }})
	d.subscribe(resource.HostType, []string{Wildcard}, nil)
	now := time.Unix(0, 0)
	if req, _ := d.next(now); req.(*discoverypb.DeltaDiscoveryRequest).GetResourceNamesSubscribe() != nil {
		t.Errorf("first request %v", req)
	}
	d.subscribe(resource.HostType, []string{"t/a"}, nil)
	if req, _ := d.next(now); fmt.Sprint(req.(*discoverypb.DeltaDiscoveryRequest).GetResourceNamesSubscribe()) != "[t/a]" {
		t.Errorf("on demand %v", req)
	}
	body := &anypb.Any{TypeUrl: resource.HostType}
	r, v := d.receive(&discoverypb.DeltaDiscoveryResponse{TypeUrl: resource.HostType, Nonce: "1", Resources: []*discoverypb.Resource{
		{Name: "t/all", Aliases: []string{"t/a", "t/b"}, Version: "1", Resource: body},
		{Name: "t/c", Aliases: []string{"t/d"}},
	}}, now)
	if v != fresh || len(r.Resources) != 1 || fmt.Sprint(r.Resources[0].Aliases) != "[t/a t/b]" || len(r.Alive) != 0 {
		t.Errorf("verdict %v of %+v", v, r)
	}
	if len(r.Absent) != 2 || r.Absent[0].Name != "t/c" || r.Absent[1].Name != "t/d" {
		t.Errorf("absent %+v", r.Absent)
	}
	d.ack(resource.HostType, "1", "")
	r, v = d.receive(&discoverypb.DeltaDiscoveryResponse{TypeUrl: resource.HostType, Nonce: "2", Resources: []*discoverypb.Resource{
		{Name: "t/all", Version: "1"},
	}}, now)
	if v != alive || fmt.Sprint(r.Alive) != "[t/all]" || len(r.Absent) != 0 {
		t.Errorf("verdict %v of %+v", v, r)
	}
	d.restart()
	req, _ := d.next(now)
	if q := req.(*discoverypb.DeltaDiscoveryRequest); fmt.Sprint(q.GetResourceNamesSubscribe(), q.GetInitialResourceVersions()) != "[* t/a] map[t/all:1]" {
		t.Errorf("on a new stream %v", q)
	}
}
