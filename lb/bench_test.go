// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"fmt"
	"testing"

	"github.com/meshtap/meshtap/lb"
)

// pickers are all kinds of pickers that get requests, each over n hosts.
func pickers(n int) map[string]lb.Picker {
	weights := make([]uint32, n)
	for i := range weights {
		weights[i] = uint32(i%10 + 1)
	}
	scan := lb.DefaultLeastRequest()
	scan.FullScan = true
	bias := lb.DefaultLeastRequest()
	bias.ActiveRequestBias = 1.5
	return map[string]lb.Picker{
		"round_robin":            lb.BuildRoundRobin(nil, equal(n), 1, nil),
		"round_robin_weighted":   lb.BuildRoundRobin(nil, hostsOf(weights...), 1, nil),
		"random":                 lb.BuildRandom(nil, equal(n), 1, nil),
		"random_weighted":        lb.BuildRandom(nil, hostsOf(weights...), 1, nil),
		"least_request":          lb.BuildLeastRequest(lb.DefaultLeastRequest(), equal(n), 1, nil),
		"least_request_scan":     lb.BuildLeastRequest(scan, equal(n), 1, nil),
		"least_request_weighted": lb.BuildLeastRequest(lb.DefaultLeastRequest(), hostsOf(weights...), 1, nil),
		"least_request_bias":     lb.BuildLeastRequest(bias, hostsOf(weights...), 1, nil),
	}
}

// mixed returns n hosts of two priorities and all kinds of health, with different weights.
func mixed(n int) []*lb.Host {
	hosts := make([]*lb.Host, n)
	for i := range hosts {
		hosts[i] = &lb.Host{Weight: uint32(i%10 + 1), Priority: uint32(2 * i / n), Health: lb.Health(i % 3)}
	}
	return hosts
}

// Not parallel: AllocsPerRun counts the allocations of all goroutines.
func TestPickDoesNotAllocate(t *testing.T) {
	r := new(lb.Request)
	for name, p := range pickers(100) {
		t.Run(name, func(t *testing.T) { noAllocs(t, func() { p.Pick(r) }) })
	}
	for _, row := range lb.Rows() {
		parsed, err := row.Parse(row.TypeURLs[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		s := lb.NewSet(mixed(100), lb.Options{Build: row.Build, Config: parsed.Config, PanicThreshold: 50}, nil)
		t.Run("set of "+row.Name, func(t *testing.T) { noAllocs(t, func() { s.Pick(r) }) })
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for name, p := range pickers(n) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				r := new(lb.Request)
				for b.Loop() {
					p.Pick(r)
				}
			})
		}
	}
}

func BenchmarkPickTogether(b *testing.B) {
	for name, p := range pickers(1000) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := new(lb.Request)
				for pb.Next() {
					p.Pick(r)
				}
			})
		})
	}
}

func BenchmarkSetPick(b *testing.B) {
	sets := map[string][]*lb.Host{"one_priority": equal(100), "mixed": mixed(100)}
	for name, hosts := range sets {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			s := lb.NewSet(hosts, roundRobin(), nil)
			r := new(lb.Request)
			for b.Loop() {
				s.Pick(r)
			}
		})
	}
}

func BenchmarkNewSet(b *testing.B) {
	for _, row := range lb.Rows() {
		parsed, err := row.Parse(row.TypeURLs[0], nil)
		if err != nil {
			b.Fatal(err)
		}
		o := lb.Options{Build: row.Build, Config: parsed.Config, PanicThreshold: 50}
		for _, n := range []int{10, 1000, 10_000} {
			for name, hosts := range map[string][]*lb.Host{"equal": equal(n), "mixed": mixed(n)} {
				b.Run(fmt.Sprintf("%s/%s/%d", row.Name[len("envoy.load_balancing_policies."):], name, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						lb.NewSet(hosts, o, nil)
					}
				})
			}
		}
	}
}
