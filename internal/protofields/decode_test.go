// SPDX-License-Identifier: Apache-2.0

package protofields_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"

	"github.com/meshtap/meshtap/internal/protofields"
)

// TestDecode refuses what no rule names, and notes what has no effect.
func TestDecode(t *testing.T) {
	t.Parallel()
	table := protofields.New()
	table.Add(&apipb.Api{}, protofields.Honour("name"), protofields.Ignore("x", "version", "edition"))
	for _, c := range []struct {
		name     string
		in       proto.Message
		raw      string // behind in
		noEffect []string
		err      string
	}{
		{"honoured", &apipb.Api{Name: "a"}, "", nil, ""},
		{"without effect", &apipb.Api{Version: "1", Edition: "2"}, "", []string{"edition", "version"}, ""},
		{"no rule", &apipb.Api{Methods: []*apipb.Method{{}}}, "", nil, "methods: not supported by this version of Meshtap"},
		{"a field that is not there", &apipb.Api{}, "\xa0\x06\x01", nil, "1 fields that this version of google.protobuf.Api does not have"},
	} {
		b, err := proto.Marshal(c.in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := table.Decode(append(b, c.raw...), &apipb.Api{})
		if !slices.Equal(p.NoEffect, c.noEffect) || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %q, %v", c.name, p.NoEffect, err)
		}
	}
	if _, err := table.Decode([]byte{1}, &apipb.Api{}); err == nil {
		t.Error("what is no message is accepted")
	}
}
