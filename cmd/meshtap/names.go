// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/url"
	"strings"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/event"
)

// directory knows the services of proxies by the proxies' names.
type directory map[string]string

func newDirectory(proxies []cli.Proxy) directory {
	d := directory{}
	for _, p := range proxies {
		if p.Name != "" && p.Service != "" {
			d[p.Name] = p.Service
		}
	}
	return d
}

// show adds to an event who called whom. The proxy's own service is the caller, unless the listener is one for inbound
// requests; then it is the called one, and of the caller nothing but a network may be known. own is that service; "" takes
// it from the event.
func (d directory) show(e *event.Event, own string) *shown {
	if own == "" {
		own = d.service(string(e.Source))
	}
	s := &shown{Event: e, from: own, to: string(e.Texts[event.Cluster])}
	if string(e.Texts[event.Direction]) == "inbound" {
		s.from, s.to = string(e.Texts[event.ClientAddress]), own
	}
	return s
}

// service returns the service of an event's source, which is /meshtap/<cluster>/<namespace>/<workload>/<proxy>: what the
// context calls the proxy's service, or the workload, or the node's cluster, or the proxy.
func (d directory) service(source string) string {
	parts := strings.Split(source, "/")
	if len(parts) != 6 || parts[1] != "meshtap" {
		return source
	}
	part := func(i int) string {
		s, err := url.PathUnescape(parts[i])
		if err != nil || s == "-" {
			return ""
		}
		return s
	}
	if s := d[part(5)]; s != "" {
		return s
	}
	for _, i := range []int{4, 2, 5} {
		if s := part(i); s != "" {
			return s
		}
	}
	return source
}

// proxyOf returns the name of the proxy that an event comes from.
func proxyOf(source string) string {
	at := strings.LastIndexByte(source, '/')
	if s, err := url.PathUnescape(source[at+1:]); err == nil {
		return s
	}
	return source
}
