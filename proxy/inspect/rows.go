// SPDX-License-Identifier: Apache-2.0

package inspect

import "github.com/meshtap/meshtap/internal/registry"

// Rows returns the listener filters for the table of extensions.
func Rows() []registry.Row[Build] {
	return []registry.Row[Build]{
		{
			Info: registry.Info{
				Category: registry.ListenerFilter,
				Name:     "envoy.filters.listener.original_dst",
				TypeURLs: []string{typeOriginalDst},
				Status:   registry.Stable,
				Posture:  "untrusted",
				Example:  "intercept.yaml",
			},
			Parse: parseOriginalDst,
			Build: func(any) Filter { return Filter{Opener: originalDst{}} },
		},
		{
			Info: registry.Info{
				Category: registry.ListenerFilter,
				Name:     "envoy.filters.listener.tls_inspector",
				TypeURLs: []string{typeTLSInspector},
				Status:   registry.Stable,
				Posture:  "untrusted",
				Example:  "sni.yaml",
			},
			Parse: parseTLSInspector,
			Build: func(c any) Filter {
				cfg := c.(TLSConfig)
				return Filter{Peeker: &tlsInspector{limit: cfg.MaxBytes, onlyTLS: cfg.OnlyTLS}}
			},
		},
		{
			Info: registry.Info{
				Category: registry.ListenerFilter,
				Name:     "envoy.filters.listener.http_inspector",
				TypeURLs: []string{typeHTTPInspector},
				Status:   registry.Stable,
				Posture:  "untrusted",
				Example:  "protocols.yaml",
			},
			Parse: parseHTTPInspector,
			Build: func(any) Filter { return Filter{Peeker: httpInspector{}} },
		},
	}
}

// TLSConfig is the configuration of the TLS inspector.
type TLSConfig struct {
	// MaxBytes bounds the ClientHello with its record headers: 256 ... MaxClientHello.
	MaxBytes int
	// OnlyTLS closes connections that do not begin with a ClientHello.
	OnlyTLS bool
}

var (
	_ Opener = originalDst{}
	_ Peeker = (*tlsInspector)(nil)
	_ Peeker = httpInspector{}
)
