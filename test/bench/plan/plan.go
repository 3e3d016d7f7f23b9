// SPDX-License-Identifier: Apache-2.0

// Package plan says what is measured: the rows, the load of each, and what Meshtap is to reach in it. It is data; package
// rig does the work and package report judges it.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/test/bench/load"
)

// The names of the metrics that goals are about.
const (
	CPU     = "cpu"     // processor time per request, us
	P99     = "p99"     // latency, us
	RSS     = "rss"     // memory without connections, MiB
	PerConn = "perconn" // memory per idle connection, KiB
)

// Host and Path are what the requests of all rows ask for.
const (
	Host = "svc-a.mesh.local"
	Path = "/api/v1/items/42?limit=10"
)

// Service is what calls ask for; it has the prefix of Path.
const Service = "/api/v1.Items/Get"

// Row is one workload.
type Row struct {
	// Name is what BENCH picks it by; Title tells a person.
	Name, Title string
	// Job is the load; addresses, times and process are filled in by the rig.
	Job load.Job
	// Goals are what is to be reached in it; a row without goals is for comparison alone.
	Goals []Goal
}

// Goal is a figure that a peer is to reach in a row.
type Goal struct {
	// Subject is the peer and Metric the figure.
	Subject, Metric string
	// Against is the peer that Subject is divided by; empty takes the figure itself.
	Against string
	// Goal is what is aimed at, Floor what is shipped; 0 says that there is none.
	Goal, Floor float64
}

// Rows returns all rows in the order in which they are measured and shown.
func Rows() []Row { return append(http1(), http2()...) }

func http1() []Row {
	return []Row{
		{
			Name: "h1-1k", Title: "HTTP/1.1 keep-alive, 1 KiB, saturation", Job: load.Job{Conns: 64, Body: 1 << 10},
			Goals: append(against(CPU, 0.60, 0.75, 0.21, 0.27), Goal{"meshtap-sockmap", CPU, "haproxy", 0.42, 0.55}),
		},
		{
			Name: "h1-1k-8k", Title: "HTTP/1.1 keep-alive, 1 KiB, 8,000/s", Job: load.Job{Conns: 64, Body: 1 << 10, Rate: 8000},
			Goals: append(against(CPU, 0.70, 0.85, 0.27, 0.33), against(P99, 0.8, 1.2, 0, 0.3)...),
		},
		{
			Name: "h1-16k", Title: "HTTP/1.1 keep-alive, 16 KiB, saturation", Job: load.Job{Conns: 64, Body: 16 << 10},
			Goals: against(CPU, 0.65, 0.80, 0.22, 0.28),
		},
		{
			Name: "h1-post-64k", Title: "HTTP/1.1 POST, 64 KiB up, saturation", Job: load.Job{Conns: 64, Body: 64, Upload: 64 << 10},
			Goals: against(CPU, 0.80, 1.0, 0.30, 0.40),
		},
		{
			Name: "h1-churn", Title: "HTTP/1.1, a connection per request, 1 KiB, saturation",
			Job:   load.Job{Conns: 64, Body: 1 << 10, Churn: true},
			Goals: against(CPU, 0.90, 1.1, 0.50, 0.70),
		},
		{
			Name: "idle", Title: "memory, 5,000 idle HTTP/1.1 connections", Job: load.Job{Conns: 5000, Body: 1 << 10, Idle: true},
			Goals: []Goal{{"meshtap", RSS, "", 15, 25}, {"meshtap", PerConn, "", 0.5, 1.1}},
		},
	}
}

// http2 are the rows with HTTP/2 on either side or on both.
func http2() []Row {
	both := load.Job{Conns: 8, Streams: 32, Body: 1 << 10, Down: load.HTTP2, Up: load.HTTP2}
	with := func(change func(*load.Job)) load.Job {
		j := both
		change(&j)
		return j
	}
	return []Row{
		{
			Name: "h2-1k", Title: "HTTP/2 both sides, 8 connections x 32 streams, 1 KiB, saturation", Job: both,
			Goals: against(CPU, 1.15, 1.5, 0.33, 0.45),
		},
		{
			Name: "h2-1k-8k", Title: "HTTP/2 both sides, 8 x 32, 1 KiB, 8,000/s", Job: with(func(j *load.Job) { j.Rate = 8000 }),
		},
		{
			Name: "h2-h1", Title: "HTTP/2 down, 8 x 32, HTTP/1.1 up, 1 KiB, saturation", Job: with(func(j *load.Job) { j.Up = load.HTTP1 }),
		},
		{
			Name: "h2-tls-1k", Title: "HTTP/2 over TLS 1.3 down, 8 x 32, HTTP/1.1 up, 1 KiB, saturation",
			Job: with(func(j *load.Job) { j.TLS, j.Up = true, load.HTTP1 }),
		},
		{
			Name: "h1-h2", Title: "HTTP/1.1 down, 64 connections, HTTP/2 up, 1 KiB, saturation",
			Job: load.Job{Conns: 64, Body: 1 << 10, Up: load.HTTP2},
		},
		{
			Name: "grpc-unary", Title: "gRPC unary, 8 x 32, messages of 64 bytes, saturation",
			Job:   with(func(j *load.Job) { j.GRPC, j.Body, j.Upload, j.Path = true, 64, 64, Service }),
			Goals: []Goal{{"meshtap", CPU, "envoy", 0.35, 0.50}},
		},
		{
			Name: "grpc-stream", Title: "gRPC streams, 8 x 32 that stand, messages of 64 bytes there and back, saturation",
			Job: with(func(j *load.Job) {
				j.GRPC, j.Streaming, j.Body, j.Upload, j.Path = true, true, 64, 64, Service
			}),
		},
		{
			Name: "h2-idle", Title: "memory, 5,000 idle HTTP/2 connections",
			Job: with(func(j *load.Job) { j.Conns, j.Streams, j.Idle = 5000, 1, true }),
		},
		{
			Name: "h2-held", Title: "memory, 8 HTTP/2 connections x 100 streams whose answers are held back",
			Job: with(func(j *load.Job) { j.Streams, j.Idle, j.Held = 100, true, true }),
		},
	}
}

// against makes the usual pair of goals: against HAProxy and against Envoy.
func against(metric string, haproxy, haproxyFloor, envoy, envoyFloor float64) []Goal {
	return []Goal{
		{"meshtap", metric, "haproxy", haproxy, haproxyFloor},
		{"meshtap", metric, "envoy", envoy, envoyFloor},
	}
}

// Pick returns the rows with the given names, separated by commas, in their own order; none picks all.
func Pick(rows []Row, names string) ([]Row, error) {
	if strings.TrimSpace(names) == "" {
		return rows, nil
	}
	want := strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
	picked := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !slices.Contains(want, r.Name) })
	for _, name := range want {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Name == name }) {
			return nil, fmt.Errorf("there is no row %q; there are %s", name, strings.Join(Names(rows), ", "))
		}
	}
	return picked, nil
}

// Names returns the names of rows.
func Names(rows []Row) (names []string) {
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return names
}
