// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"io"
	"net/http"
	"runtime/pprof"
	"strconv"
	"time"
)

// maxProfile bounds how long a profile may take, in seconds.
const maxProfile = 120

// profile answers with a profile of this process in the form that `go tool pprof` reads. Envoy's /cpuprofiler and
// /heapprofiler write files instead; what a container may not write to is read here over the wire.
func (s *Server) profile(r *request) (*answer, error) {
	if !s.config.Profiles {
		return nil, &Error{http.StatusForbidden, "profiles are off; start with --enable-profiles\n"}
	}
	if err := r.query.only("kind", "seconds"); err != nil {
		return nil, err
	}
	a := &answer{status: http.StatusOK, contentType: "application/octet-stream", stream: true}
	switch kind := r.query.get("kind"); kind {
	case "heap", "goroutine":
		a.write = func(_ context.Context, w io.Writer) error { return pprof.Lookup(kind).WriteTo(w, 0) }
		return a, nil
	case "", "cpu":
	default:
		return nil, badRequest("unknown kind %q; known are cpu, heap and goroutine\n", clean(kind))
	}
	seconds := 10
	if text := r.query.get("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxProfile {
			return nil, badRequest("seconds %q is no number from 1 to %d\n", clean(text), maxProfile)
		}
		seconds = n
	}
	a.write = func(ctx context.Context, w io.Writer) error {
		if err := pprof.StartCPUProfile(w); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(seconds) * time.Second):
		}
		return nil
	}
	return a, nil
}
