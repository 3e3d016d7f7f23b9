// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

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

// failed counts a handshake that failed, and names why.
func failed(stats *metrics.TLS, shard uint32, err error) *Error {
	e := &Error{err: err}
	counter := metrics.TLSConnectionError
	var verification *tls.CertificateVerificationError
	var alert tls.AlertError
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, errTime), errors.Is(err, os.ErrDeadlineExceeded):
		e.TimedOut, e.Reason = true, "TLS_error: the handshake took too long"
	case errors.As(err, &verification):
		counter, e.Reason = metrics.TLSFailVerifyError, "TLS_error: certificate verify failed: "+why(verification.Err)
	case errors.Is(err, errChain):
		counter, e.Reason = metrics.TLSFailVerifyError, "TLS_error: certificate verify failed: "+err.Error()
	case errors.Is(err, errSAN):
		counter, e.Reason = metrics.TLSFailVerifySAN, "TLS_error: certificate verify failed: SAN matcher"
	case errors.Is(err, errNoCert), err.Error() == noClientCert:
		counter, e.Reason = metrics.TLSFailVerifyNoCert, "TLS_error: peer did not return a certificate"
	case errors.As(err, &header):
		e.Reason = "TLS_error: wrong version number: the other side does not speak TLS"
	case errors.As(err, &alert), strings.HasPrefix(err.Error(), "remote error: "):
		e.Reason = "TLS_error: " + strings.TrimPrefix(err.Error(), "remote error: tls: ") + " (alert of the other side)"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Closed, e.Reason = true, "TLS_error: the connection was closed during the handshake"
	default:
		e.Reason = "TLS_error: " + strings.TrimPrefix(err.Error(), "tls: ")
	}
	stats.Inc(shard, counter)
	return e
}

// noClientCert is what crypto/tls says, which has no error of its own for that; a test holds it.
const noClientCert = "tls: client didn't provide a certificate"

// why puts a failed verification into words. What x509 says may quote the other side's certificate.
func why(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return "unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired or is not valid yet"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the certificate is not for this use"
	case errors.As(err, &invalid) && invalid.Reason == x509.NotAuthorizedToSign:
		return "a certificate of the chain is no authority"
	}
	return "the certificate is not good"
}
