// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/file"
	"github.com/meshtap/meshtap/xds/resource"
)

// files is a Stream whose control plane is a file: a DiscoveryResponse, as Envoy takes it. Each new text is a response
// with what of it is asked for. A text that cannot be read changes nothing.
type files struct {
	// Immutable.
	src           resource.Source
	typeURL       string
	rejectUnknown bool
	log           *zap.Logger
	wake          chan struct{} // capacity 1

	mu    sync.Mutex
	names map[string]bool // guarded by mu: what is asked for
	fresh bool            // guarded by mu: something was asked for that the last response need not have had

	// Owned by the goroutine in Run.
	last  *bootstrap.Response
	count int
}

func newFiles(src resource.Source, rejectUnknown bool, log *zap.Logger) *files {
	return &files{
		src: src, typeURL: typeURL(src.Kind), rejectUnknown: rejectUnknown, log: log,
		wake: make(chan struct{}, 1), names: map[string]bool{},
	}
}

// Subscribe implements Stream.
func (f *files) Subscribe(_ string, add, remove []string) {
	f.mu.Lock()
	for _, n := range add {
		f.names[n] = true
	}
	for _, n := range remove {
		delete(f.names, n)
	}
	f.fresh = f.fresh || len(add) > 0
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Refresh implements Stream; a file has nothing more to say.
func (f *files) Refresh(string) {}

// Ack implements Stream.
func (f *files) Ack(string, string, string) {}

// Nack implements Stream: the reason, which says where in the file, is in the log and in the status.
func (f *files) Nack(string, string, string, string, []string) {}

// Counts implements Stream.
func (f *files) Counts() ads.Counts { return ads.Counts{} }

// Run implements Stream.
func (f *files) Run(ctx context.Context, out chan<- ads.Event) error {
	tell := func(ev ads.Event) {
		select {
		case out <- ev:
		case <-ctx.Done():
		}
	}
	tell(ads.Connected{Target: ads.Target{Network: "file", Address: f.src.Path}})
	texts := make(chan text)
	watcher := file.New(file.Config{Path: f.src.Path, Watched: f.src.Watched, MaxBytes: f.src.MaxMessageBytes}, f.log)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	wg.Go(func() {
		ended <- watcher.Run(ctx, func(b []byte, err error) {
			select {
			case texts <- text{b, err}:
			case <-ctx.Done():
			}
		})
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err != nil {
				tell(ads.Disconnected{Err: err})
			}
			return err
		case t := <-texts:
			f.take(t, tell)
		case <-f.wake:
			if f.askedMore() && f.last != nil {
				tell(f.response())
			}
		}
	}
}

// text is what became of the file.
type text struct {
	text []byte
	err  error
}

// askedMore reports, once, whether names were added.
func (f *files) askedMore() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := f.fresh
	f.fresh = false
	return fresh
}

// take reads a text.
func (f *files) take(t text, tell func(ads.Event)) {
	err := t.err
	var r *bootstrap.Response
	if err == nil {
		r, err = bootstrap.ReadResponse(f.src.Path, t.text, f.rejectUnknown)
	}
	if err == nil {
		err = f.check(r)
	}
	if err != nil {
		var invalid *bootstrap.Invalid
		if errors.As(err, &invalid) {
			err = errors.New(invalid.Summary())
		}
		f.log.Error("a file of resources cannot be used; what came from it last stays in force", zap.String("file", f.src.Path), zap.Error(err))
		tell(ads.Failed{Err: err})
		return
	}
	for _, w := range r.Warnings {
		f.log.Warn("file of resources", zap.String("file", w.File), zap.Int("line", w.Line), zap.String("path", w.Path), zap.String("what", w.Message))
	}
	f.last = r
	f.askedMore()
	tell(f.response())
}

// check refuses a file of another type of resources. Envoy does not need the type to be said.
func (f *files) check(r *bootstrap.Response) error {
	if got := r.Message.GetTypeUrl(); got != "" && got != f.typeURL {
		return fmt.Errorf("%s: type_url is %s; this file is for %s", f.src.Path, got, f.typeURL)
	}
	return nil
}

// response makes an event of the last text: all of it, or what is asked for by name. A name that the file does not have is
// waited for: where several files change together, this one may not have been read yet.
func (f *files) response() ads.Response {
	f.mu.Lock()
	names := maps.Clone(f.names)
	f.mu.Unlock()
	f.count++
	m := f.last.Message
	out := ads.Response{TypeURL: f.typeURL, Version: m.GetVersionInfo(), Nonce: strconv.Itoa(f.count)}
	var places []int // of the resources that are taken, in the file
	for i, a := range m.GetResources() {
		res := unwrapped(a)
		if !names[ads.Wildcard] && !names[resource.Name(res.Bytes)] {
			continue
		}
		out.Resources = append(out.Resources, res)
		out.Bytes += len(res.Bytes)
		places = append(places, i)
	}
	last := f.last
	out.Place = func(i int, path string) string { return last.Place(places[i], path) }
	return out
}

// unwrapped returns a resource of a file, which may stand in a wrapper.
func unwrapped(a *anypb.Any) ads.Resource {
	res := ads.Resource{TypeURL: a.GetTypeUrl(), Bytes: a.GetValue()}
	if strings.HasSuffix(res.TypeURL, "/envoy.service.discovery.v3.Resource") {
		w := &discoverypb.Resource{}
		if proto.Unmarshal(a.GetValue(), w) == nil && w.GetResource() != nil {
			res = ads.Resource{TypeURL: w.GetResource().GetTypeUrl(), Bytes: w.GetResource().GetValue()}
		}
	}
	return res
}

var _ Stream = (*files)(nil)
