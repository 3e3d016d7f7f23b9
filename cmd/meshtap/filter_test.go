// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/eventtap/event"
	cel "github.com/meshtap/meshtap/eventtap/filter"
)

// parseFilter reads filter flags as a verb does.
func parseFilter(args ...string) (*filter, error) {
	f := &filter{}
	cmd := &cobra.Command{}
	cmd.SetErr(io.Discard)
	f.add(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return nil, err
	}
	return f, f.check()
}

// request returns an event that is easy to filter: web called orders.
func request(change ...func(*shown)) *shown {
	e := &shown{Event: &event.Event{}, from: "web", to: "orders"}
	e.Reset(event.Request)
	e.Numbers[event.Status], e.Numbers[event.Duration] = 503, 250e6
	for text, v := range map[event.Text]string{
		event.Method: "GET", event.Route: "/orders/{id}", event.RouteName: "by-id", event.Cluster: "orders-v2", event.ResponseFlags: "UF,URX",
	} {
		e.Texts[text] = []byte(v)
	}
	for _, f := range change {
		f(e)
	}
	return e
}

func kind(k event.Kind) func(*shown) { return func(e *shown) { e.Kind = k } }

func TestFilter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args string
		e    *shown
		want bool
	}{
		{"nothing asked", "", request(), true},
		{"status", "--status 503", request(), true},
		{"status of another", "--status 500", request(), false},
		{"class", "--status 5xx", request(), true},
		{"class in capitals", "--status 5XX", request(), true},
		{"span of classes", "--status 4xx-5xx", request(), true},
		{"span that ends before", "--status 500-502", request(), false},
		{"span that ends there", "--status 200,500-503", request(), true},
		{"no status", "--status 0", request(func(e *shown) { e.Numbers[event.Status] = 0 }), true},
		{"status of what is no request", "--status 0", request(kind(event.Circuit)), false},
		{"the same flag twice adds up", "--status 200 --status 503", request(), true},
		{"different flags all have to match", "--status 503 --method POST", request(), false},
		{"method in any case", "--method post,get", request(), true},
		{"from", "--from web", request(), true},
		{"from is whole", "--from we", request(), false},
		{"to is the service", "--to orders", request(), true},
		{"to is the cluster", "--to orders-*", request(), true},
		{"either side", "--service web", request(), true},
		{"neither side", "--service pay", request(), false},
		{"star goes over slashes", "--route /o*}", request(), true},
		{"route by its name", "--route by-id", request(), true},
		{"what has no name matches no star", "--from *", request(func(e *shown) { e.from = "" }), false},
		{"brackets are only brackets", "--to [o]rders", request(), false},
		{"flag", "--flags URX", request(), true},
		{"flag in small letters", "--flags uo,uf", request(), true},
		{"flag of another", "--flags UO", request(), false},
		{"slow enough", "--slow 250ms", request(), true},
		{"not slow enough", "--slow 251ms", request(), false},
		{"slow is about requests", "--slow 0s", request(kind(event.Health)), false},
		{"type", "--type request", request(), true},
		{"type as on the wire", "--type outcome", request(), true},
		{"type of another", "--type circuit,health", request(), false},
		{"not", "--not --status 5xx", request(), false},
		{"not of another", "--not --status 2xx", request(), true},
		{"not holds for the next flag only", "--not --status 2xx --method GET", request(), true},
		{"not once", "--not --status 2xx --not --method GET", request(), false},
		{"an expression", `--filter=http.response.status_code>500&&meshtap.cluster.startsWith("orders")`, request(), true},
		{"an expression that is false", `--filter=meshtap.cluster=="orders"`, request(), false},
		{"an expression turned around", `--not --filter=meshtap.cluster=="orders"`, request(), true},
		{"an expression that fails", `--filter=1/meshtap.attempts==1`, request(), false},
		{"expressions add up", `--filter=meshtap.cluster=="orders" --filter=true`, request(), true},
		{"lost passes an expression", `--filter=false`, request(kind(event.Lost)), true},
		{"lost passes what it has not", "--status 200", request(kind(event.Lost)), true},
		{"lost passes other types", "--type circuit", request(kind(event.Lost)), true},
		{"lost goes where it is said", "--not --type lost", request(kind(event.Lost)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := parseFilter(strings.Fields(c.args)...)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.passes(c.e); got != c.want {
				t.Errorf("%q: passes %v, want %v", c.args, got, c.want)
			}
		})
	}
}

// TestFilterKinds: what is asked of a proxy are the kinds that can pass.
func TestFilterKinds(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                                 "",
		"--status 5xx":                     "",
		"--type circuit":                   "circuit lost",
		"--type request --not --type lost": "outcome",
		"--not --type request":             "connection circuit ejection health config lifecycle lost attempt certificate",
	} {
		f, err := parseFilter(strings.Fields(args)...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range f.kinds() {
			got = append(got, k.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", args, got, want)
		}
	}
}

// TestExpression: what is asked of a proxy is what all --filter together say.
func TestExpression(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                                   "",
		"--status 5xx":                       "",
		"--filter true":                      "((true\n))",
		"--filter true --filter a==id":       "",
		"--filter true --not --filter false": "!(false\n) && ((true\n))",
		"--filter true//x --filter false":    "((true//x\n) || (false\n))",
	} {
		f, err := parseFilter(strings.Fields(args)...)
		if err != nil {
			if want != "" || !strings.Contains(err.Error(), `1:1: an event has no "a"`) {
				t.Error(err)
			}
			continue
		}
		got := f.expression()
		if got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
		if got != "" {
			if _, err := cel.NewCompiler().Compile(got); err != nil {
				t.Errorf("%q: %v", got, err)
			}
		}
	}
}

// TestKindNames: the words for --type are all kinds.
func TestKindNames(t *testing.T) {
	t.Parallel()
	match, err := parseKinds(strings.Join(kindNames, ","))
	if err != nil {
		t.Fatal(err)
	}
	for k := event.Request; k < event.NumKinds; k++ {
		if !match(request(kind(k))) {
			t.Errorf("there is no word for %v", k)
		}
	}
}

// FuzzFilter: no flag's value does harm, what is taken can be asked of any event, and a condition and its opposite never
// both hold.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"5xx", "4xx-503,0", "a*b*c", "*", "GET,post", "uf,URX", "circuit,lost", "250ms", "", ",", "0xx", "-", "+50", "5xx-", "[", "\\"} {
		f.Add(s)
	}
	names := []string{"service", "from", "to", "status", "type", "route", "method", "flags", "slow", "filter"}
	f.Fuzz(func(t *testing.T, value string) {
		for _, name := range names {
			is, err := parseFilter("--" + name + "=" + value)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n") && !strings.Contains(value, "\n") {
					t.Errorf("--%s %q: more than one line: %v", name, value, err)
				}
				continue
			}
			isNot, err := parseFilter("--not", "--"+name+"="+value)
			if err != nil {
				t.Fatal(err)
			}
			for k := event.Request; k < event.Lost; k++ {
				if e := request(kind(k)); is.passes(e) == isNot.passes(e) {
					t.Errorf("--%s %q and its opposite agree about a %v", name, value, k)
				}
			}
		}
	})
}

// FuzzMatches compares patterns with regular expressions.
func FuzzMatches(f *testing.F) {
	for _, c := range [][2]string{{"*", ""}, {"a*", "ab/c"}, {"*b*", "abc"}, {"a*a", "a"}, {"a**b", "ab"}, {"", ""}, {"ab*ba", "aba"}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		re, err := regexp.Compile(`(?s)\A` + strings.Join(parts, ".*") + `\z`)
		if err != nil || strings.ToValidUTF8(name, "") != name {
			t.Skip()
		}
		if got, want := matches(pattern, name), re.MatchString(name); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}

// FuzzStatus compares --status with a model that goes through all codes.
func FuzzStatus(f *testing.F) {
	for _, s := range []string{"200", "5xx", "1xx-3xx", "404-5XX", "0", "0-599", "99", "600", "5xx,200", "2x0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		match, err := parseStatus(s)
		if err != nil {
			return
		}
		for code := range int64(700) {
			want := slices.ContainsFunc(strings.Split(s, ","), func(part string) bool {
				low, high, span := strings.Cut(part, "-")
				if !span {
					high = low
				}
				return code >= bound(low, "00") && code <= bound(high, "99")
			})
			if got := match(request(func(e *shown) { e.Numbers[event.Status] = code })); got != want {
				t.Fatalf("--status %q: %d passes %v, want %v", s, code, got, want)
			}
		}
	})
}

func bound(s, class string) int64 {
	n, _ := strconv.ParseInt(strings.Replace(strings.ToLower(s), "xx", class, 1), 10, 64)
	return n
}
