// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net"
	"slices"
	"testing"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
)

// silent returns the addresses of n servers that take connections and say nothing.
func silent(t testing.TB, n int) (addrs []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// predicting is a cluster with a predictive_preconnect_ratio.
func predicting(ratio float64, more ...func(*mesh.Cluster)) *mesh.Cluster {
	return config(append(more, func(c *mesh.Cluster) { c.Predict = ratio })...)
}

// opened returns the number of connections of each host, in the order in which requests get the hosts next. There are to be
// total of them.
func opened(t *testing.T, c *Cluster, total uint64) (conns []int) {
	t.Helper()
	res := c.Resources(mesh.PriorityDefault)
	if n := res.InUse(circuit.Connections); n != total {
		t.Errorf("%d connections are open or being opened, want %d", n, total)
	}
	open := func() (n int) {
		for _, h := range c.Hosts() {
			n += h.HTTP(mesh.HTTP11).Open()
		}
		return n
	}
	until(t, "the connections are open", func() bool { return open() == int(total) })
	for range c.Hosts() {
		k, h, fail := pick(t, c)
		if fail != nil {
			t.Fatal(fail.Kind)
		}
		k.Drop()
		conns = append(conns, h.HTTP(mesh.HTTP11).Open())
	}
	return conns
}

// TestPredict: connections are opened to the hosts that come next, as in Envoy: for as many streams as are to be expected
// with the one that begins, no more than three for a request, within the limits and with the policies that can tell.
func TestPredict(t *testing.T) {
	t.Parallel()
	least := func(c *mesh.Cluster) {
		c.Policy = mesh.Extension{TypeURL: lb.LeastRequestType, Config: lb.DefaultLeastRequest()}
	}
	few := func(c *mesh.Cluster) { c.Limits[0].Connections = 1 }
	for name, tc := range map[string]struct {
		cfg  *mesh.Cluster
		want []int
	}{
		"no":                 {predicting(0), []int{0, 0, 0, 0, 0}},
		"none ahead":         {predicting(1), []int{0, 0, 0, 0, 0}},
		"a little":           {predicting(1.1), []int{1, 1, 0, 0, 0}},
		"the next two":       {predicting(2), []int{1, 1, 0, 0, 0}},
		"no more than three": {predicting(4), []int{1, 1, 1, 0, 0}},
		"the limit":          {predicting(3, few), []int{1, 0, 0, 0, 0}},
		"another policy":     {predicting(3, least), []int{0, 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c := r.cluster(tc.cfg, silent(t, len(tc.want))...)
			res, total := c.Resources(mesh.PriorityDefault), 0
			for _, n := range tc.want {
				total += n
			}
			c.Expect(mesh.HTTP11, res, &lb.Request{})
			if got := opened(t, c, uint64(total)); !slices.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

// TestPredictHTTP2: one connection of HTTP/2 is enough for many streams.
func TestPredictHTTP2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(predicting(3, func(c *mesh.Cluster) { c.HTTP.Protocol = mesh.UpstreamHTTP2 }), silent(t, 3)...)
	for range 3 {
		c.Expect(mesh.HTTP2, c.Resources(mesh.PriorityDefault), &lb.Request{})
	}
	if got := opened(t, c, 1); !slices.Equal(got, []int{1, 0, 0}) {
		t.Errorf("%v", got)
	}
}

// TestPredictUnhealthy: nothing is opened ahead to a host that is not healthy, as in Envoy, until it is again.
func TestPredictUnhealthy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addrs := silent(t, 2)
	panics := func(c *mesh.Cluster) { c.PanicThreshold = 100 } // so that the host is picked all the same
	c := r.cluster(predicting(2, panics), addrs[0]+"/unhealthy", addrs[1]+"/degraded")
	c.Expect(mesh.HTTP11, c.Resources(mesh.PriorityDefault), &lb.Request{})
	if got := opened(t, c, 0); !slices.Equal(got, []int{0, 0}) {
		t.Errorf("%v", got)
	}
	c.SetEndpoints(set("2", addrs...))
	c.Expect(mesh.HTTP11, c.Resources(mesh.PriorityDefault), &lb.Request{})
	if got := opened(t, c, 2); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("%v", got)
	}
}
