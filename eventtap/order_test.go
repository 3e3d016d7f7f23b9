// SPDX-License-Identifier: Apache-2.0

package eventtap_test

import (
	"errors"
	"testing"

	"github.com/meshtap/meshtap/eventtap"
)

// TestOrder has batches fail while others fly, and before their sender knows of it.
func TestOrder(t *testing.T) {
	t.Parallel()
	var o eventtap.Order
	a, b, c := &eventtap.Batch{}, &eventtap.Batch{}, &eventtap.Batch{}
	bad := errors.New("x")
	begin := func(name string, b *eventtap.Batch, want error) {
		t.Helper()
		if err := o.Begin(b); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	begin("the first", a, nil)
	begin("one beside it", b, nil)
	o.End(b, bad)
	begin("behind a failure", c, eventtap.ErrBehind)
	begin("again, but the first is not answered", b, eventtap.ErrBehind)
	o.End(a, bad)
	begin("behind two failures, nothing flies", c, eventtap.ErrBehind)
	begin("the first, again", a, nil)
	o.End(a, &eventtap.RefusedError{Err: bad})
	begin("the second, again", b, nil)
	o.End(b, nil)
	begin("what was behind", c, nil)
	o.End(c, bad)
	o.Reset()
	begin("after Open", a, nil)
	o.Fail(a)
	begin("a part of the one before has failed", b, eventtap.ErrBehind)
	o.End(a, bad)
	begin("the whole has", b, eventtap.ErrBehind)
	begin("it comes again", a, nil)
	begin("and what is behind it", b, nil)
}
