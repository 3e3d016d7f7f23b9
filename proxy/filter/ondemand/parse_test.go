// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"strings"
	"testing"

	ondemandpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/proxy/filter"
)

func TestParse(t *testing.T) {
	t.Parallel()
	if _, err := parse("", nil); err != nil {
		t.Errorf("the empty message: %v", err)
	}
	b, err := proto.Marshal(&ondemandpb.OnDemand{Odcds: &ondemandpb.OnDemandCds{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse("", b); err == nil || !strings.Contains(err.Error(), "odcds") {
		t.Errorf("clusters on demand: %v", err)
	}
	if missing := fields.Uncovered(&ondemandpb.OnDemand{}); len(missing) > 0 {
		t.Errorf("no rules for %v", missing)
	}
}

// A connection manager knows the filter by its method.
func TestHolds(t *testing.T) {
	t.Parallel()
	f, err := Rows()[0].Build(nil, filter.Deps{})
	if _, holds := f.(filter.Holder); err != nil || !holds {
		t.Errorf("%T holds no requests: %v", f, err)
	}
	if v, body := f.OnRequest(nil); v != filter.Continue || body != nil {
		t.Errorf("verdict %v", v)
	}
	f.OnResponse(nil)
}
