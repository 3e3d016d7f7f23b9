// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	ondemandpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// fields says which fields of the message are honoured.
var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&ondemandpb.OnDemand{}, protofields.Refuse("clusters on demand are not supported", "odcds"))
	return t
}()

// Fields returns the table of the fields that the filter honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	return fields.Decode(b, &ondemandpb.OnDemand{})
}
