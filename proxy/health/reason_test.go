// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/proxy/codec"
)

func TestStreamReason(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&codec.ResetError{Code: 8, Remote: true, Unprocessed: true}, "stream reset by the peer, code 8"},
		{&codec.ResetError{Code: 1}, "stream reset by this side, code 1"},
		{&codec.ResetError{Unprocessed: true}, "the connection ended before the request was sent"},
		{&codec.ProtocolError{Code: "bad_status"}, "protocol error: bad_status"},
		{io.EOF, "read: connection closed"},
		{io.ErrUnexpectedEOF, "read: connection closed"},
		{syscall.ECONNRESET, "read: connection reset by peer"},
		{context.DeadlineExceeded, "timeout"},
		{errors.New("something with 127.0.0.1 in it"), "read: failed"},
	} {
		if got := streamReason(tc.err); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
	}
}
