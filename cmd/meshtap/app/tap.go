// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/mesh"
)

// setExtension hands the configuration of a filter, or of the tap, on. It does not wait.
func (a *App) setExtension(key string, config *mesh.Extension) {
	if a.tapKey == "" || key != a.tapKey {
		a.server.SetExtension(key, config)
		return
	}
	if config == nil {
		return // the tap is there to the end
	}
	c := config.Config.(eventtap.Config) // the graph lets no other type in
	select {
	case <-a.taps: // it was overtaken
	default:
	}
	a.taps <- c
}

// reconfigureTap puts the configurations of the tap that come from a control plane into force, until ctx ends. A sink that
// is taken away has some time to send what it has. One that cannot be put into force changes nothing, and observers are told.
func (a *App) reconfigureTap(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-a.taps:
			if a.tap == nil {
				continue
			}
			within, cancel := context.WithTimeout(ctx, flushTime)
			err := a.tap.Reconfigure(within, c)
			cancel()
			if err == nil {
				a.log.Info("the event tap has another configuration")
				continue
			}
			a.log.Error("the configuration of the event tap cannot be put into force", zap.Error(err))
			a.Notify(&mesh.Notice{Kind: mesh.NoticeConfigRejected, Time: time.Now().UnixNano(), Config: &mesh.ConfigNotice{
				Kind: mesh.KindExtension, Rejected: 1,
				Errors: []mesh.Rejection{{Kind: mesh.KindExtension, Name: eventtap.TypeURL, Reason: err.Error()}},
			}})
		}
	}
}
