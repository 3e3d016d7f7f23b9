// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"maps"
	"slices"
	"time"
)

// lives are the times at which resources are to be removed unless their source says once more that they are there, by
// type and name. It outlives streams: a resource with a time to live goes when the control plane has gone. The zero value
// has none.
type lives struct {
	ends map[string]map[string]time.Time
	// first is not after the first end. It is zero where there is none.
	first time.Time
}

// set notes how long a resource lives from now on; 0 is for ever.
func (l *lives) set(typeURL, name string, ttl time.Duration, now time.Time) {
	if ttl == 0 {
		delete(l.ends[typeURL], name)
		return
	}
	if l.ends == nil {
		l.ends = map[string]map[string]time.Time{}
	}
	if l.ends[typeURL] == nil {
		l.ends[typeURL] = map[string]time.Time{}
	}
	end := now.Add(ttl)
	l.ends[typeURL][name] = end
	if l.first.IsZero() || end.Before(l.first) {
		l.first = end
	}
}

// expired takes out the next resources of one type whose time is over. Otherwise wait is how long there is nothing to do,
// 0 for ever.
func (l *lives) expired(now time.Time) (e Expired, wait time.Duration, ok bool) {
	if l.first.IsZero() {
		return Expired{}, 0, false
	}
	if wait := l.first.Sub(now); wait > 0 {
		return Expired{}, wait, false
	}
	l.first = time.Time{}
	for _, typeURL := range slices.Sorted(maps.Keys(l.ends)) {
		names := l.ends[typeURL]
		for name, end := range names {
			switch {
			case !end.After(now) && (e.TypeURL == "" || e.TypeURL == typeURL):
				e.TypeURL = typeURL
				e.Names = append(e.Names, name)
				delete(names, name)
			case l.first.IsZero() || end.Before(l.first):
				l.first = end
			}
		}
	}
	if len(e.Names) > 0 {
		slices.Sort(e.Names)
		return e, 0, true
	}
	if l.first.IsZero() {
		return Expired{}, 0, false
	}
	return Expired{}, l.first.Sub(now), false
}
