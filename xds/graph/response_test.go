// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/meshtap/meshtap/mesh"
)

func TestNackTextIsBounded(t *testing.T) {
	t.Parallel()
	var many []mesh.Rejection
	for i := range 1000 {
		many = append(many, mesh.Rejection{Kind: mesh.KindCluster, Name: fmt.Sprint(i), Reason: "bad"})
	}
	if got := describe(many); strings.Count(got, "bad") != maxNamed || !strings.HasSuffix(got, "; and 980 more") {
		t.Errorf("got %q", got)
	}
	long := []mesh.Rejection{{Kind: mesh.KindCluster, Name: strings.Repeat("ä", 1<<20), Reason: "bad"}}
	if got := describe(long); len(got) > maxDetail+len(" ...") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}
