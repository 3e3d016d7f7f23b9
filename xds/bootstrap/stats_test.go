// SPDX-License-Identifier: Apache-2.0

package bootstrap_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/xds/bootstrap"
)

// TestTagRegex: istiod's expressions, which are ECMAScript's, find what they find there.
func TestTagRegex(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expr, name, want string }{
		{`^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)`, "cluster.outbound|80||a.b.svc.cluster.local.rq", `[outbound|80||a.b.svc.cluster.local. outbound|80||a.b.svc.cluster.local .b.svc.cluster.local]`},
		{`^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)`, "cluster.xds-grpc.rq", `[xds-grpc. xds-grpc ]`},
		{`^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`, "listener.0.0.0.0_80.http.1.2.3.4_80.rq", `[1.2.3.4_80. 1.2.3.4_80]`},
		{`^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`, "listenerx.y.http.1.rq", `[]`},
		{`^(?:|listener(?=\.).*?\.)http\.((.*?)\.)`, "http.a.rq", `[a. a]`},
		{`^(?:|listener(?=\.).*?\.)http\.((.*?)\.)`, "listener.0.0.0.0_80.http.a.rq", `[a. a]`},
		{`^(?:|listener(?=\.).*?\.)http\.((.*?)\.)`, "listener.http.a.rq", `[a. a]`},
		{`(reporter=\.=(.*?);\.;)`, "istio.reporter=.=source;.;x", `[reporter=.=source;.; source]`},
		{`^vhost\.(([^.]+)(?=\.))`, "vhost.a.vcluster.b", `[a a]`},
		{`^vhost\.(([^.]+)(?=\.))`, "vhost.a", `[]`},
		{`(a)(?=\.)|(b)`, "a.b", `[a ]`},
		{`x(?=\.)\.(y)`, "x.y", `[y]`},
		{`x(?=\.).*\.(y)`, "x.y.y", `[y]`},
		{`x(?=\.).*\.(y)`, "x.y", `[y]`},
		{`_rq(_(\d{3}))$`, "cluster.a.upstream_rq_503", `[_503 503]`},
		{`a(?!b)`, "", `has (?!, negative look-ahead, which RE2 does not have`},
		{`(?<=a)b`, "", `has (?<=, look-behind, which RE2 does not have`},
		{`(?<!a)b`, "", `has (?<!, negative look-behind, which RE2 does not have`},
		{`^kafka\..*\.(.*?(?=_duration|$))`, "kafka.a.b_duration", `[b]`},
		{`^kafka\..*\.(.*?(?=_duration|$))`, "kafka.a.b", `[b]`},
		{`(a)(?=b)|(c)`, "ac", `[ c]`},
		{`(a(?=[)]))`, "a)", `[a]`},
		{`(\(?=b)`, "=b", `[=b]`},
		{`(a)(?=b)c`, "", `has the look-ahead (?=b) before "c", which cannot be rewritten here`},
		{`(a)(?=b`, "", `is no regular expression`},
		{`a(?=\.)b`, "", `has the look-ahead (?=\.) before "b", which cannot be rewritten here`},
		{`(a(?=\.)|b)c`, "", `has the look-ahead (?=\.) before "|b)c"`},
		{`(a(?=\.))*`, "", `has the look-ahead (?=\.) before "*"`},
		{`a(?=\.)\.*b`, "", `has the look-ahead (?=\.) before "\\.*b"`},
		{`(a)\1`, "", `has the back-reference \1, which RE2 does not have`},
		{`(a`, "", "is no regular expression: missing closing ): (a"},
		{`(a{1000}b{1000})`, "", "compiles to more than the 1000 instructions allowed"},
	} {
		t.Run(c.expr+" "+c.name, func(t *testing.T) {
			t.Parallel()
			re, err := bootstrap.TagRegex(c.expr)
			got := "[]"
			if err != nil {
				got = err.Error()
			} else if m := re.FindStringSubmatch(c.name); m != nil {
				got = fmt.Sprint(m[1:])
			}
			if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// FuzzTagRegex: what is taken compiles, and does not panic.
func FuzzTagRegex(f *testing.F) {
	for _, s := range []string{`a(?=\.)`, `^listener(?=\.).*?\.http\.(x)`, `(?=\.)|`, `[(?=\.)]`, `\(?=\.)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if re, err := bootstrap.TagRegex(s); (re == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", s, re, err)
		}
	})
}
