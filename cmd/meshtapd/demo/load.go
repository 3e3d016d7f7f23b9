// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Load is what the load generator has seen so far.
type Load struct {
	// OK counts answers below 500, Failed all others and requests without one, Skipped those that found too many at work.
	OK, Failed, Skipped int64
}

// loader sends requests at a steady rate, whether they are answered or not.
type loader struct {
	base   string
	client fasthttp.Client

	ok, failed, skipped atomic.Int64
}

const (
	// loadAtOnce bounds the requests that wait for an answer.
	loadAtOnce = 64
	loadTime   = 5 * time.Second
)

func newLoader(address string) *loader {
	return &loader{base: "http://" + address, client: fasthttp.Client{
		MaxConnsPerHost: loadAtOnce, ReadTimeout: loadTime, MaxResponseBodySize: 64 << 10, Name: "load",
	}}
}

// run sends rate requests per second, 1 to 10,000, until ctx ends, and waits for those on their way.
func (l *loader) run(ctx context.Context, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	places := make(chan struct{}, loadAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case places <- struct{}{}:
			wg.Go(func() {
				l.one()
				<-places
			})
		default:
			l.skipped.Add(1)
		}
	}
}

// one sends a request of the usual mix: most look at an order, some make one.
func (l *loader) one() {
	method, path := fasthttp.MethodGet, fmt.Sprintf("/orders/%d", 1+rand.N(50))
	switch rand.N(10) {
	case 0:
		method, path = fasthttp.MethodPost, "/orders"
	case 1:
		path = "/orders"
	}
	status, _, err := l.send(method, l.base+path, "")
	if err != nil || status >= 500 {
		l.failed.Add(1)
		return
	}
	l.ok.Add(1)
}

// send makes a request and returns its status, and whether the answer holds a text.
func (l *loader) send(method, url, want string) (status int, found bool, err error) {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.Header.SetMethod(method)
	req.SetRequestURI(url)
	err = l.client.DoTimeout(req, resp, loadTime)
	return resp.StatusCode(), bytes.Contains(resp.Body(), []byte(want)), err
}

// wait asks a service until the answer holds a text. It asks soon again: until its sidecar has its configuration, nobody
// listens.
func (l *loader) wait(ctx context.Context, service, address, want string) error {
	const pause = 5 * time.Millisecond
	for {
		status, found, err := l.send(fasthttp.MethodGet, "http://"+address+"/orders/1", want)
		if err == nil && status == fasthttp.StatusOK && found {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("the demo does not get ready: %s cannot be called: %w", service, err)
			}
			return fmt.Errorf("the demo does not get ready: %s answers %d", service, status)
		case <-time.After(pause):
		}
	}
}

func (l *loader) seen() Load { return Load{l.ok.Load(), l.failed.Load(), l.skipped.Load()} }
