// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"encoding/json"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// serveResources gives the control plane what it is to send: that of configs/ads-resources.yaml where there is nothing
// else.
func (r *Rig) serveResources() {
	r.T.Helper()
	if r.Resource == nil {
		r.Resource = func() map[string][]types.Resource { return r.Resources(r.Read("ads-resources.yaml")) }
	}
	r.ControlPlane.SetAll("1", r.Resource())
}

// Resources reads a list of resources, by type URL.
func (r *Rig) Resources(text string) map[string][]types.Resource {
	r.T.Helper()
	var doc struct{ Resources []map[string]any }
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		r.T.Fatal(err)
	}
	out := map[string][]types.Resource{}
	for _, fields := range doc.Resources {
		b, err := json.Marshal(fields)
		if err != nil {
			r.T.Fatal(err)
		}
		var a anypb.Any
		if err := protojson.Unmarshal(b, &a); err != nil {
			r.T.Fatal(err)
		}
		m, err := a.UnmarshalNew()
		if err != nil {
			r.T.Fatal(err)
		}
		out[a.GetTypeUrl()] = append(out[a.GetTypeUrl()], m)
	}
	return out
}
