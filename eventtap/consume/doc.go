// SPDX-License-Identifier: Apache-2.0

// Package consume is the other end of the event tap: what a program needs that reads events from a bus, a file or a proxy.
//
//	Source -> Decode -> Window (repeats) -> Gaps (what is missing) -> State (what is stale) -> Next, or Run's lanes
//
// A bus delivers at least once and may have lost something. A Consumer leaves out what came before, says what is missing,
// and tells it from what lost events explain. Events are pulled with Next or pushed to a handler by Run, in order for each
// partition key and in parallel for different ones. To unsubscribe, end the context, and close the source.
//
//	src, err := source.Open(ctx, "nats://127.0.0.1:4222", source.Options{Follow: true})
//	...
//	c := consume.New(src, consume.Options{Gap: func(g consume.Gap) { log.Printf("%d events are missing", g.Count) }})
//	err = c.Run(ctx, 16, func(ctx context.Context, e consume.Event) error { return store(e) })
//
// Package source beside has the buses. Everything here is bounded in memory; New, Window, Gaps and State do no I/O and own
// no goroutine. It knows nothing of the proxy and of the tap but package event.
package consume
