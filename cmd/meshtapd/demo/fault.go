// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/cmd/meshtapd/local"
)

// Fault is what is wrong with a service. The zero value is nothing.
type Fault struct {
	// AbortPercent of the requests are answered with AbortStatus, 400 to 599, by default 503.
	AbortPercent float64 `json:"abort_percent"`
	AbortStatus  int     `json:"abort_status"`
	// DelayPercent of the requests, by default all, wait for DelayMS milliseconds first.
	DelayMS      int     `json:"delay_ms"`
	DelayPercent float64 `json:"delay_percent"`
	// ResetPercent of the requests have their connection cut.
	ResetPercent float64 `json:"reset_percent"`
}

const maxDelayMS = 60_000

// complete checks a fault and sets what is left out.
func (f *Fault) complete() error {
	for name, p := range map[string]float64{"abort_percent": f.AbortPercent, "delay_percent": f.DelayPercent, "reset_percent": f.ResetPercent} {
		if !(p >= 0 && p <= 100) {
			return fmt.Errorf("%s must be from 0 to 100", name)
		}
	}
	if f.AbortStatus == 0 && f.AbortPercent > 0 {
		f.AbortStatus = fasthttp.StatusServiceUnavailable
	}
	if f.AbortStatus != 0 && (f.AbortStatus < 400 || f.AbortStatus > 599) {
		return fmt.Errorf("abort_status must be from 400 to 599")
	}
	if f.DelayMS < 0 || f.DelayMS > maxDelayMS {
		return fmt.Errorf("delay_ms must be from 0 to %d", maxDelayMS)
	}
	if f.DelayMS > 0 && f.DelayPercent == 0 {
		f.DelayPercent = 100
	}
	if f.DelayMS == 0 && f.DelayPercent > 0 {
		return fmt.Errorf("delay_ms is required where delay_percent is set")
	}
	return nil
}

// readFault reads a fault from a request's body.
func readFault(body []byte) (Fault, error) {
	var f Fault
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return f, fmt.Errorf("%w; abort_percent, abort_status, delay_ms, delay_percent and reset_percent are known", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return f, errors.New("there is more than one fault in the request")
	}
	return f, f.complete()
}

// Handle answers the requests of the fault switches:
//
//	GET    /faults            the services that something is wrong with, and what
//	PUT    /faults/{service}  replaces the faults of a service
//	DELETE /faults/{service}  takes them away
func (w *World) Handle(ctx *fasthttp.RequestCtx) {
	path := string(ctx.Path())
	name, one := strings.CutPrefix(path, "/faults/")
	switch method := string(ctx.Method()); {
	case path == "/faults" && method == fasthttp.MethodGet:
		local.JSON(ctx, w.faults())
	case path == "/faults" || one && method != fasthttp.MethodPut && method != fasthttp.MethodDelete:
		local.Fail(ctx, fasthttp.StatusMethodNotAllowed, "GET /faults, PUT and DELETE /faults/{service} are known")
	case one:
		w.change(ctx, name)
	default:
		local.Fail(ctx, fasthttp.StatusNotFound, "there is /faults and /faults/{service}")
	}
}

// change replaces the faults of a service by those of the request, which has none where it deletes.
func (w *World) change(ctx *fasthttp.RequestCtx, name string) {
	s := w.find(name)
	if s == nil {
		// Not 404, which says that there are no fault switches here.
		local.Fail(ctx, fasthttp.StatusBadRequest, fmt.Sprintf("there is no service %q; there are %s", name, strings.Join(w.names(), ", ")))
		return
	}
	var f Fault
	if ctx.IsPut() {
		var err error
		if f, err = readFault(ctx.PostBody()); err != nil {
			local.Fail(ctx, fasthttp.StatusBadRequest, err.Error())
			return
		}
	}
	if err := s.setFault(f); err != nil {
		local.Fail(ctx, fasthttp.StatusInternalServerError, err.Error())
		return
	}
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// faults returns what is wrong, by service.
func (w *World) faults() map[string]Fault {
	out := map[string]Fault{}
	for _, s := range w.services {
		if f := s.currentFault(); f != (Fault{}) {
			out[s.name] = f
		}
	}
	return out
}
