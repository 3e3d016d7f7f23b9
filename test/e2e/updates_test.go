// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// TestUpdatesUnderLoad: a hundred times a second the routes of the listener in use change, or the endpoints of a cluster, and no
// request fails. Times of quiet come in between, so that how long requests take can be compared with them: by the median of
// the rounds, since one round is as good as the machine's other work lets it be (F01). SOAK=1 makes 10,000 changes.
func TestUpdatesUnderLoad(t *testing.T) {
	rounds, each := 2, 50
	if soak() {
		rounds, each = 20, 500
	}
	m := many{clusters: 100, routes: 500, origin: origin.Start(t, "a", nil).Addr()}
	resources := m.resources()
	updates := m.updates(t, resources)
	cp := fakexds.StartLean(t, resources)
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "DELTA_GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	addr := p.Admin().Listeners()["l0"]
	l := load.Start(t, load.Options{Workers: 64, Rate: 2_000, Addr: func() string { return addr }})
	l.After(1_000)
	var ratios []float64
	var cost time.Duration
	for round := range rounds {
		_ = l.Quantile(0.99)
		since, before := time.Now(), processor(t, p.Pid())
		l.After(int64(each) * 20) // as many as come during the changes
		quiet, idle := l.Quantile(0.99), float64(processor(t, p.Pid())-before)/float64(time.Since(since))

		since, before = time.Now(), processor(t, p.Pid())
		tick := time.NewTicker(10 * time.Millisecond)
		for i := range each {
			<-tick.C
			u := updates[(round*each+i)%len(updates)]
			cp.Push(u.typeURL, u.resource)
		}
		tick.Stop()
		sent := int64((round + 1) * each)
		until(t, "every change is accepted", func() bool { return cp.Acked() == sent || len(cp.Nacks()) > 0 })
		cost += processor(t, p.Pid()) - before - time.Duration(idle*float64(time.Since(since)))
		ratios = append(ratios, float64(l.Quantile(0.99))/float64(quiet))
	}
	slices.Sort(ratios)
	t.Logf("figure: 99%% of the requests within %.2f times what it is in quiet (the median of %d rounds, which are from %.2f to %.2f)",
		ratios[len(ratios)/2], rounds, ratios[0], ratios[len(ratios)-1])
	t.Logf("figure: %d changes, %v of processor time each", rounds*each, (cost / time.Duration(rounds*each)).Round(time.Microsecond))
	if list := cp.Nacks(); len(list) > 0 {
		t.Errorf("refused: %q", list)
	}
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	} else {
		t.Logf("figure: %v", res)
	}
}

// update is one resource that is sent.
type update struct {
	typeURL  string
	resource *discoverypb.Resource
}

// updates are changes of the routes of l0 and, in turn with them, of the endpoints of each cluster but the first; what comes
// after the last may be the first again.
func (m many) updates(t *testing.T, resources map[string][]types.Resource) (out []update) {
	t.Helper()
	for turn := 1; turn >= 0; turn-- {
		for c := 1; c < m.clusters; c++ {
			table := proto.CloneOf(resources[fakexds.RouteType][0].(*routepb.RouteConfiguration))
			table.GetVirtualHosts()[0].Name = fmt.Sprint("turn", c, turn)
			out = append(out,
				update{fakexds.RouteType, fakexds.Encode(t, table, fmt.Sprint(c, turn))},
				update{fakexds.EndpointType, fakexds.Encode(t, m.endpoints(c, turn), fmt.Sprint(turn))})
		}
	}
	return out
}
