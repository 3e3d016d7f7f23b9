// SPDX-License-Identifier: Apache-2.0

// Package dns finds the endpoints of StrictDNS clusters: every address of every name is an endpoint. Look-ups are made by
// Go's own resolver, which reads /etc/hosts and the search list, retries, checks ids and questions and goes over to TCP;
// this package adds what a proxy needs on top: the time to live, which it reads off the wire, the families of Envoy, a
// bound on answers, and the last good answer, which stays whatever happens later.
//
// A watch has one goroutine for each distinct name, and one that puts the set together. All watches of a Source share a
// bounded number of look-ups at a time.
package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/discovery"
	"github.com/meshtap/meshtap/internal/backoff"
	"github.com/meshtap/meshtap/mesh"
)

// The bounds of what an answer can do. A time to live is brought between MinTTL and MaxTTL; of a name's addresses the
// first MaxAnswers in order of address are used.
const (
	MinTTL     = time.Second
	MaxTTL     = time.Hour
	MaxAnswers = 1000
)

const (
	defaultRefresh = 5 * time.Second
	defaultTimeout = 10 * time.Second
	defaultLookups = 64
	// defaultOverprovisioning is Envoy's, in percent.
	defaultOverprovisioning = 140
)

// Config bounds what a Source does. The zero value takes the defaults.
type Config struct {
	// Timeout bounds one look-up of one name in one family, all retries included. The default is 10 s.
	Timeout time.Duration
	// Lookups bounds the look-ups under way at a time. The default is 64.
	Lookups int
}

// Source looks names up.
type Source struct {
	cfg    Config
	log    *zap.Logger
	slots  chan struct{} // one place for each look-up under way
	lookup lookup
	random func() float64
}

// lookup asks for the addresses of a name. ttl is 0 where the answer has none, as from /etc/hosts.
type lookup func(ctx context.Context, d *mesh.DNS, host string) (addresses []netip.Addr, ttl *time.Duration, err error)

// New returns a Source.
func New(cfg Config, log *zap.Logger) *Source {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Lookups == 0 {
		cfg.Lookups = defaultLookups
	}
	r := resolver{timeout: cfg.Timeout}
	return &Source{cfg: cfg, log: log, slots: make(chan struct{}, cfg.Lookups), lookup: r.lookup, random: rand.Float64}
}

// answer is what a name resolved to.
type answer struct {
	host      string
	addresses []netip.Addr // sorted, each once
	err       error
}

// Watch looks up the names of a StrictDNS cluster until ctx ends; see discovery.Source. The first outcome comes when each
// name was looked up once: the addresses of those that resolve, or an error where none does.
func (s *Source) Watch(ctx context.Context, cluster *mesh.Cluster, emit func(discovery.Update)) error {
	if cluster.DNS == nil {
		return fmt.Errorf("dns: cluster %q has no names to look up", cluster.Name)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer) // unbuffered: a name is looked up again once its answer was taken
	waiting := map[string]bool{}
	for _, t := range cluster.DNS.Targets {
		if !waiting[t.Host] {
			waiting[t.Host] = true
			wg.Go(func() { s.follow(ctx, cluster, t.Host, answers) })
		}
	}
	w := watch{cluster: cluster, waiting: waiting, known: map[string][]netip.Addr{}, emit: emit}
	if len(waiting) == 0 {
		w.tell()
	}
	for {
		select {
		case a := <-answers:
			w.take(a)
		case <-ctx.Done():
			return nil
		}
	}
}

// follow looks one name up, again and again.
func (s *Source) follow(ctx context.Context, cluster *mesh.Cluster, host string, to chan<- answer) {
	d := cluster.DNS
	refresh := d.Refresh
	if refresh <= 0 {
		refresh = defaultRefresh
	}
	failures := backoff.Backoff{Base: d.FailureBase, Max: d.FailureMax}
	if failures.Base <= 0 {
		failures.Base = refresh
	}
	failures.Max = max(failures.Max, failures.Base)
	failures.Floor = failures.Base / 2
	for {
		a, ttl := s.resolve(ctx, d, host)
		if ctx.Err() != nil {
			return
		}
		wait := refresh
		switch {
		case a.err != nil:
			if failures.Tries() == 0 {
				s.log.Warn("a look-up failed; what was found before stays", zap.String("cluster", cluster.Name),
					zap.String("name", host), zap.Error(a.err))
			}
			wait = failures.Next(s.random)
		case d.RespectTTL && ttl != nil:
			wait = min(max(*ttl, MinTTL), MaxTTL)
			failures.Reset()
		default:
			failures.Reset()
		}
		select {
		case to <- a:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// resolve makes one look-up, when there is a slot for it.
func (s *Source) resolve(ctx context.Context, d *mesh.DNS, host string) (answer, *time.Duration) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return answer{host: host, addresses: []netip.Addr{ip.Unmap()}}, nil
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return answer{host: host, err: ctx.Err()}, nil
	}
	addresses, ttl, err := s.lookup(ctx, d, host)
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	if !d.FirstOnly {
		slices.SortFunc(addresses, netip.Addr.Compare)
		addresses = slices.Compact(addresses)
	}
	addresses = addresses[:min(len(addresses), MaxAnswers)]
	if err == nil && len(addresses) == 0 {
		err = errors.New("the name has no addresses")
	}
	return answer{host, addresses, err}, ttl
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch puts the answers for one cluster together. It belongs to the goroutine in Watch.
type watch struct {
	cluster *mesh.Cluster
	// waiting are the names that were never looked up yet; known are the last good addresses.
	waiting map[string]bool
	known   map[string][]netip.Addr
	err     error
	told    bool
	version uint64
	emit    func(discovery.Update)
}

// take takes an answer, and tells what changed by it.
func (w *watch) take(a answer) {
	first := w.waiting[a.host]
	delete(w.waiting, a.host)
	if w.cluster.DNS.FirstOnly && len(a.addresses) > 0 {
		// The address in use stays as long as the name has it: servers turn the order with every answer.
		one := a.addresses[0]
		if now := w.known[a.host]; len(now) > 0 && slices.Contains(a.addresses, now[0]) {
			one = now[0]
		}
		a.addresses = []netip.Addr{one}
	}
	changed := a.err == nil && !slices.Equal(w.known[a.host], a.addresses)
	if changed {
		w.known[a.host] = a.addresses
	}
	if a.err != nil && w.err == nil {
		w.err = fmt.Errorf("%s: %w", a.host, a.err)
	}
	if len(w.waiting) == 0 && (changed || first) {
		w.tell()
	}
}

func (w *watch) tell() {
	if len(w.known) == 0 && w.err != nil {
		if !w.told {
			w.emit(discovery.Update{Err: w.err})
		}
		w.told = true
		return
	}
	w.told = true
	w.version++
	w.emit(discovery.Update{Set: w.set()})
}

// set makes the endpoints of all addresses, in the localities and in the order of the configuration.
func (w *watch) set() *mesh.EndpointSet {
	set := &mesh.EndpointSet{Version: strconv.FormatUint(w.version, 10), Overprovisioning: w.cluster.DNS.Overprovisioning}
	if set.Overprovisioning == 0 {
		set.Overprovisioning = defaultOverprovisioning
	}
	at := map[int]int{}
	for _, t := range w.cluster.DNS.Targets {
		i, ok := at[t.Locality]
		if !ok {
			i = len(set.Localities)
			at[t.Locality] = i
			set.Localities = append(set.Localities, mesh.LocalityEndpoints{LocalityGroup: t.Group})
		}
		l := &set.Localities[i]
		for _, ip := range w.known[t.Host] {
			e := t.Endpoint
			e.Address = mesh.Address{IP: netip.AddrPortFrom(ip, t.Port)}
			if e.Hostname == "" {
				e.Hostname = t.Host
			}
			l.Endpoints = append(l.Endpoints, e)
		}
	}
	return set
}

var _ discovery.Source = (*Source)(nil)
