// SPDX-License-Identifier: Apache-2.0

// Package filter holds the shape of HTTP filters and their chain. A filter sees a request on its way to the router and
// the answer on its way back, in straight-line code that may wait; it has no part in moving bodies. Each filter is a
// package below this one, built once per connection manager, shared by all its requests and therefore immutable.
package filter

import (
	"github.com/meshtap/meshtap/proxy/exchange"
)

// Filter is one HTTP filter of a connection manager.
type Filter interface {
	// OnRequest sees the request before the router. With Stop it has put its own answer into x.Response, with the body
	// it returns; the filters behind it and the router are left out.
	OnRequest(x *exchange.Exchange) (v Verdict, body []byte)
	// OnResponse sees the head of the final answer, whoever made it, before it goes downstream.
	OnResponse(x *exchange.Exchange)
}

// Verdict says whether a request goes on.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota
	Stop
)

// Builder makes a filter of its parsed configuration.
type Builder func(config any) (Filter, error)

// Chain is the filters of a connection manager, in order.
type Chain []Filter

// Request runs the filters in order. stopped is the index of the one that stopped, len(c) where none did.
func (c Chain) Request(x *exchange.Exchange) (stopped int, body []byte) {
	for i, f := range c {
		if v, b := f.OnRequest(x); v == Stop {
			return i, b
		}
	}
	return len(c), nil
}

// Response runs the filters over the answer, backwards from the one that stopped the request.
func (c Chain) Response(x *exchange.Exchange, stopped int) {
	for i := min(stopped, len(c)-1); i >= 0; i-- {
		c[i].OnResponse(x)
	}
}
