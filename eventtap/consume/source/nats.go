// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/consume/stream"
)

// natsSource is a NATS with what to read of it.
type natsSource struct {
	nats *stream.NATS
	opt  Options
}

// Read implements consume.Source.
func (s *natsSource) Read(ctx context.Context, each func(*consume.Message) error) error {
	subject, start := cmp.Or(s.opt.Subject, stream.DefaultSubject), s.opt.Start
	var err error
	if s.opt.Group != "" {
		err = s.nats.Share(ctx, s.opt.Group, subject, start, s.opt.All, s.opt.Follow, each)
	} else {
		if s.opt.All {
			start = Start{Newest: max(s.nats.Last(), 1)}
		}
		err = s.nats.Read(ctx, subject, start, s.opt.Follow, each)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Close implements consume.Source.
func (s *natsSource) Close() error {
	s.nats.Close()
	return nil
}
