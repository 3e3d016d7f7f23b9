// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"sync"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/login"
)

// protocol is the application protocol of gRPC.
const protocol = "h2"

// identity is who the control plane says it is, and whose proxies it serves. Its files are read anew for each connection. A
// moment at which they do not belong together must not keep proxies out, so the last that were good are used on.
type identity struct {
	files login.TLS // CAFile is "" where proxies need no certificate
	log   *zap.Logger

	mu      sync.Mutex
	last    *tls.Config // guarded by mu, never nil
	problem string      // guarded by mu: why the files of now are not in force, "" where they are
}

// openIdentity reads the files once, and returns how TLS is spoken with whatever they hold from then on.
func openIdentity(files login.TLS, log *zap.Logger) (*tls.Config, error) {
	i := &identity{files: files, log: log}
	first, err := i.read()
	if err != nil {
		return nil, err
	}
	i.last = first
	own := first.Certificates[0].Leaf
	log.Info("proxies connect over TLS", zap.Strings("names", own.DNSNames), zap.Time("not_after", own.NotAfter),
		zap.Bool("client_certificates", files.CAFile != ""))
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{protocol},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return i.now(), nil },
	}, nil
}

func (i *identity) read() (*tls.Config, error) {
	pair, err := i.files.Certificate()
	if err != nil {
		return nil, err
	}
	// A session that went on would not show again who the proxy is.
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{protocol}, Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true,
	}
	if i.files.CAFile != "" {
		if c.ClientCAs, err = i.files.Authorities(); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// now returns what the files hold, or what they held last where that cannot be used. It says so once.
func (i *identity) now() *tls.Config {
	c, err := i.read()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		if i.problem != err.Error() {
			i.problem = err.Error()
			i.log.Warn("the files of the control plane's TLS cannot be used; what they held last is used on", zap.Error(err))
		}
		return i.last
	}
	if own := c.Certificates[0].Leaf; !own.Equal(i.last.Certificates[0].Leaf) {
		i.log.Info("the control plane has another certificate", zap.Strings("names", own.DNSNames), zap.Time("not_after", own.NotAfter))
	}
	i.problem, i.last = "", c
	return c
}

// tlsUsage says which of the flags of TLS are missing.
func (f *controlFlags) tlsUsage() error {
	switch t := f.tls; {
	case (t.CertificateFile == "") != (t.KeyFile == ""):
		return cli.Usage("give the certificate and its key", "--tls-cert and --tls-key need each other")
	case t.CAFile != "" && t.CertificateFile == "":
		return cli.Usage("give --tls-cert and --tls-key, too", "--tls-client-ca is for TLS")
	}
	return nil
}
