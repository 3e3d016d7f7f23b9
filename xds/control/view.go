// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/xds/resource"
)

// view is what one node gets: a cache per type, and the rollout of changes to them. It lives while the node has a stream.
type view struct {
	// Immutable.
	node     Node
	prefix   string // of versions
	patience time.Duration
	log      *zap.Logger
	caches   map[string]*cache.LinearCache
	mux      cache.MuxCache
	cancel   context.CancelFunc

	// look has a place for one signal: there is a new target, or a proxy answered.
	look chan struct{}

	// Owned by the goroutine in run, after newView.
	have     Resources
	versions map[string]uint64 // how often each cache was changed

	mu sync.Mutex
	// Guarded by mu.
	target  *Resources // a pointer tells one target from the next
	streams map[*stream]struct{}
	stopped string // why the last rollout did not come to its end, "" where it did
}

func newView(n Node, target *Resources, prefix string, patience time.Duration, log *zap.Logger) *view {
	v := &view{
		node: n, prefix: prefix, patience: patience, look: make(chan struct{}, 1),
		log:    log.With(zap.String("node", n.ID), zap.String("service", n.Service)),
		caches: map[string]*cache.LinearCache{}, have: Resources{}, versions: map[string]uint64{},
		target: target, streams: map[*stream]struct{}{},
	}
	byType := map[string]cache.Cache{"": silent{}}
	for _, t := range typeURLs {
		v.caches[t] = cache.NewLinearCache(t, cache.WithVersionPrefix(prefix))
		byType[t] = v.caches[t]
		v.have[t] = map[string]types.Resource{}
		v.push(t, (*target)[t], nil)
	}
	known := func(typeURL string) string {
		if v.caches[typeURL] == nil {
			return ""
		}
		return typeURL
	}
	v.mux = cache.MuxCache{
		Classify:      func(r *cache.Request) string { return known(r.GetTypeUrl()) },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return known(r.GetTypeUrl()) },
		Caches:        byType,
	}
	return v
}

// silent is the cache of types that there are no resources of. It never answers, so that the stream goes on.
type silent struct{}

func (silent) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return func() {}, nil
}

func (silent) CreateDeltaWatch(*cache.DeltaRequest, cache.Subscription, chan cache.DeltaResponse) (func(), error) {
	return func() {}, nil
}

func (silent) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, errors.New("control: resources are streamed only")
}

// set gives the view a new target. The latest counts.
func (v *view) set(target *Resources) {
	v.mu.Lock()
	v.target = target
	v.mu.Unlock()
	v.signal()
}

func (v *view) signal() {
	select {
	case v.look <- struct{}{}:
	default:
	}
}

// latest returns the target.
func (v *view) latest() *Resources {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.target
}

// run rolls out each target that comes after done, with which the view was made, until ctx ends.
func (v *view) run(ctx context.Context, done *Resources) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.look:
		}
		for next := v.latest(); next != done && ctx.Err() == nil; next = v.latest() {
			done = next
			v.rollOut(ctx, next)
		}
	}
}

// expectation is what a proxy must have confirmed of a type: a version, and names that are asked for by name.
type expectation struct {
	version uint64
	names   []string
}

// rollOut brings the caches to a target, without a moment in which routes lead to what is not there: what comes or
// changes behind the routes, then routes and listeners, then what goes.
func (v *view) rollOut(ctx context.Context, target *Resources) {
	var d difference
	d.compare(v.have, *target)
	for _, step := range [][]string{
		{resource.ClusterType, resource.EndpointsType},
		{resource.RouteType, resource.ListenerType},
	} {
		want := map[string]expectation{}
		for _, t := range step {
			names := keys(d.set[t])
			if t == resource.EndpointsType {
				d.warmAnew(*target)
			}
			var gone []string
			if t == resource.ListenerType { // one may take the address of another
				gone = d.gone[t]
			}
			if v.push(t, d.set[t], gone) && len(names)+len(gone) > 0 {
				want[t] = expectation{v.versions[t], names}
			}
		}
		if !v.confirmed(ctx, target, want) {
			return
		}
	}
	for _, t := range []string{resource.RouteType, resource.ClusterType, resource.EndpointsType} {
		v.push(t, nil, d.gone[t])
	}
	v.stop("")
	v.log.Info("the configuration is rolled out")
}

// stop remembers why a rollout ended.
func (v *view) stop(why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = why
}

// push changes a cache, which answers the requests that wait at it. It reports whether there was anything to change.
func (v *view) push(typeURL string, set map[string]types.Resource, gone []string) bool {
	if len(set) == 0 && len(gone) == 0 {
		return false
	}
	if err := v.caches[typeURL].UpdateResources(set, gone); err != nil {
		v.log.Error("a resource cannot be written", zap.String("type", short(typeURL)), zap.Error(err))
	}
	v.versions[typeURL]++
	maps.Copy(v.have[typeURL], set)
	for _, name := range gone {
		delete(v.have[typeURL], name)
	}
	return true
}

// confirmed waits until every stream of the node has what is wanted. It returns false where the rollout has to end: a
// proxy rejects it, or there is a newer target.
func (v *view) confirmed(ctx context.Context, target *Resources, want map[string]expectation) bool {
	if len(want) == 0 {
		return true
	}
	timer := time.NewTimer(v.patience)
	defer timer.Stop()
	for {
		missing, rejected := v.missing(want)
		switch {
		case v.latest() != target: // asked after the answers, so that none lets an old target go on
			return false
		case rejected != "":
			v.stop(rejected)
			v.log.Warn("the rollout stops: the proxy rejects a step", zap.String("reason", rejected))
			return false
		case missing == "":
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			v.log.Warn("the rollout goes on without the proxy's answer", zap.String("missing", missing), zap.Duration("waited", v.patience))
			return true
		case <-v.look:
		}
	}
}

// missing returns the type that a proxy has not confirmed yet, or why it does not.
func (v *view) missing(want map[string]expectation) (missing, rejected string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.streams {
		for _, t := range typeURLs {
			w, wanted := want[t]
			if !wanted {
				continue
			}
			st := s.types[t]
			if st.rejected >= w.version {
				return "", short(t) + ": " + st.detail
			}
			if !st.has(w, wildcard(t)) {
				missing = short(t)
			}
		}
	}
	return missing, ""
}

// wildcard says whether all resources of a type are asked for, and not some by name.
func wildcard(typeURL string) bool {
	return typeURL == resource.ClusterType || typeURL == resource.ListenerType
}

// number returns the count in a version, 0 for one of another control plane.
func (v *view) number(version string) uint64 {
	text, ok := strings.CutPrefix(version, v.prefix)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// difference is what lies between two sets of resources, by type.
type difference struct {
	// set comes or changes; changed was there before.
	set, changed map[string]map[string]types.Resource
	gone         map[string][]string
}

func (d *difference) compare(have, next Resources) {
	d.set, d.changed, d.gone = Resources{}, Resources{}, map[string][]string{}
	for _, t := range typeURLs {
		d.set[t], d.changed[t] = map[string]types.Resource{}, map[string]types.Resource{}
		for name, m := range next[t] {
			old := have[t][name]
			if old != nil && proto.Equal(old, m) {
				continue
			}
			d.set[t][name] = m
			if old != nil {
				d.changed[t][name] = m
			}
		}
		for name := range have[t] {
			if next[t][name] == nil {
				d.gone[t] = append(d.gone[t], name)
			}
		}
	}
}

// warmAnew adds the endpoints of changed clusters to what is sent, though they are the same: Envoy warms such a cluster
// anew and waits for them.
func (d *difference) warmAnew(next Resources) {
	for name := range d.changed[resource.ClusterType] {
		if e := next[resource.EndpointsType][name]; e != nil {
			d.set[resource.EndpointsType][name] = e
		}
	}
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// short is how people call a type's discovery service.
func short(typeURL string) string {
	switch typeURL {
	case resource.ClusterType:
		return "CDS"
	case resource.EndpointsType:
		return "EDS"
	case resource.RouteType:
		return "RDS"
	case resource.ListenerType:
		return "LDS"
	}
	return typeURL
}
