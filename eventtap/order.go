// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"errors"
	"slices"
	"sync"
)

// ErrBehind is why a sink does not send a batch: one before it has to be sent again first.
var ErrBehind = errors.New("an earlier batch has failed")

// Order keeps the batches of a sink in order that has several in flight: from the moment at which one fails, none is sent
// until that one comes again. The runner may fill another before it learns of the failure. Any goroutine may call its
// methods.
type Order struct {
	mu     sync.Mutex
	flying int
	failed []*Batch // at most as many as may be in flight
}

// Reset forgets what failed. It is for Open, before which every batch has been answered.
func (o *Order) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flying, o.failed = 0, nil
}

// Begin is called before a batch is sent. Where it returns ErrBehind the batch must not be sent, and End not be called.
func (o *Order) Begin(b *Batch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failed) > 0 {
		// A batch that failed comes again once all are answered, the first one first.
		if o.flying > 0 || !slices.Contains(o.failed, b) {
			return ErrBehind
		}
		o.failed = nil
	}
	o.flying++
	return nil
}

// End is called with what became of a batch, before its done is.
func (o *Order) End(b *Batch, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flying--
	if err == nil {
		return
	}
	var refused *RefusedError
	if !errors.As(err, &refused) {
		o.fail(b)
	}
}

// Fail is called as soon as it is known of a batch that is in flight that End will be called with an error, for which it may have
// to wait for other parts of the batch.
func (o *Order) Fail(b *Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail(b)
}

// fail keeps others from being sent before b. mu must be held.
func (o *Order) fail(b *Batch) {
	if !slices.Contains(o.failed, b) {
		o.failed = append(o.failed, b)
	}
}
