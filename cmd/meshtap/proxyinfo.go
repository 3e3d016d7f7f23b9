// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// serverInfo is what is read of a proxy's /server_info.
type serverInfo struct {
	cli.Proxy `json:"-"`
	Version   string `json:"version"`
	State     string `json:"state"`
	Node      struct {
		ID      string `json:"id"`
		Cluster string `json:"cluster"`
	} `json:"node"`
}

// nameProxy asks a proxy who it is. Where the context has no names for it, its own are taken.
func nameProxy(ctx context.Context, a *cli.Admin) (*serverInfo, error) {
	info := &serverInfo{}
	if err := a.JSON(ctx, "/server_info", info); err != nil {
		return nil, err
	}
	if a.Name == "" {
		a.Name = info.Node.ID
	}
	if a.Service == "" {
		a.Service = or(info.Node.Cluster, or(a.Name, a.Proxy.Admin))
	}
	info.Proxy = a.Proxy
	return info, nil
}
