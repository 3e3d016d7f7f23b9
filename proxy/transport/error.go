// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"os"

	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// Error is why a handshake failed, in words for logs. It has no address and no name of the other side.
type Error struct {
	// Reason is such as "TLS_error: certificate verify failed: expired".
	Reason string
	// Closed says that the other side went away, TimedOut that the time was over.
	Closed, TimedOut bool
	err              error
}

// Error implements error.
func (e *Error) Error() string { return e.Reason }

// Unwrap returns what crypto/tls said.
func (e *Error) Unwrap() error { return e.err }

// Timeout reports whether the time was over, as net.Error has it.
func (e *Error) Timeout() bool { return e.TimedOut }

// counters are what handshakes that failed are counted as.
var counters = map[tlsconf.Problem]int{
	tlsconf.BadChain: metrics.TLSFailVerifyError, tlsconf.BadName: metrics.TLSFailVerifySAN,
	tlsconf.NoCertificate: metrics.TLSFailVerifyNoCert,
}

// failed counts a handshake that failed, and names why.
func failed(stats *metrics.TLS, shard uint32, err error) *Error {
	if errors.Is(err, errNotReady) {
		stats.Inc(shard, metrics.TLSSecretsNotReady)
		return &Error{Reason: "TLS_error: Secret is not supplied by SDS", err: err}
	}
	problem, why := tlsconf.Explain(err)
	if errors.Is(err, errTime) {
		problem, why = tlsconf.Explain(os.ErrDeadlineExceeded)
	}
	counter, ok := counters[problem]
	if !ok {
		counter = metrics.TLSConnectionError
	}
	stats.Inc(shard, counter)
	return &Error{Reason: "TLS_error: " + why, Closed: problem == tlsconf.Gone, TimedOut: problem == tlsconf.Late, err: err}
}
