// SPDX-License-Identifier: Apache-2.0

package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
)

// Problem is what kind of thing went wrong in a handshake.
type Problem uint8

// The problems. BadChain and BadName are about the other side's certificate; Gone says that it went away.
const (
	Other Problem = iota
	Late
	BadChain
	BadName
	NoCertificate
	Gone
)

// noClientCert is what crypto/tls says, which has no error of its own for that; a test holds it.
const noClientCert = "tls: client didn't provide a certificate"

// Explain puts the error of a handshake into words. They quote nothing of the other side.
func Explain(err error) (Problem, string) {
	var verification *tls.CertificateVerificationError
	var alert tls.AlertError
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Late, "the handshake took too long"
	case errors.As(err, &verification):
		return BadChain, "certificate verify failed: " + why(verification.Err)
	case errors.Is(err, ErrChain):
		return BadChain, "certificate verify failed: " + err.Error()
	case errors.Is(err, ErrSAN):
		return BadName, "certificate verify failed: SAN matcher"
	case errors.Is(err, ErrNoCert), err.Error() == noClientCert:
		return NoCertificate, "peer did not return a certificate"
	case errors.As(err, &header):
		return Other, "wrong version number: the other side does not speak TLS"
	case errors.As(err, &alert), strings.HasPrefix(err.Error(), "remote error: "):
		return Other, strings.TrimPrefix(err.Error(), "remote error: tls: ") + " (alert of the other side)"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Gone, "the connection was closed during the handshake"
	}
	return Other, strings.TrimPrefix(err.Error(), "tls: ")
}

// why puts a failed verification into words. What x509 says may quote the other side's certificate.
func why(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &authority):
		return "unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired or is not valid yet"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the certificate is not for this use"
	case errors.As(err, &invalid) && invalid.Reason == x509.NotAuthorizedToSign:
		return "a certificate of the chain is no authority"
	case errors.As(err, &host):
		return "the certificate is for other names"
	}
	return "the certificate is not good"
}
