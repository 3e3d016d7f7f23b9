// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/internal/format"
	"github.com/meshtap/meshtap/mesh"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the wanted results in testdata, but for what was recorded from Envoy")

var styles = map[string]Style{"": Log, "omit": LogOmitEmpty, "header": Header}

var env = &Env{Hostname: "node-1"}

// TestScripts runs testdata/*.txtar. The first file holds formats, one quoted string per line, or one JSON format
// (format.json). Each other file is named by an outcome, and after a slash by a style, and holds what is written.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			recorded := bytes.Contains(ar.Comment, []byte("Recorded from Envoy"))
			for i := range ar.Files[1:] {
				want := &ar.Files[1+i]
				name, style, _ := strings.Cut(want.Name, "/")
				o := outcomes()[name]
				if o == nil {
					t.Fatalf("no outcome %q", name)
				}
				got := evaluate(t, &ar.Files[0], o, style)
				if *rewrite && !recorded {
					want.Data = got
				} else if !bytes.Equal(got, want.Data) {
					t.Errorf("%s:\n got %s\nwant %s", want.Name, got, want.Data)
				}
			}
			if *rewrite && !recorded {
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func evaluate(t *testing.T, in *txtar.File, o *mesh.Outcome, style string) []byte {
	t.Helper()
	if in.Name == "format.json" {
		return env.AppendJSON(nil, parseJSON(t, string(in.Data)), o, style == "omit", 0)
	}
	var out []byte
	for line := range strings.Lines(string(in.Data)) {
		s, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		f, err := format.Parse(s)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(env.Append(out, f, o, styles[style]), '\n')
	}
	return out
}

func parse(t testing.TB, s string) mesh.Format {
	t.Helper()
	f, err := format.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func parseJSON(t testing.TB, s string) *format.JSON {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(s), &object); err != nil {
		t.Fatal(err)
	}
	j, err := format.ParseJSON(object)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestEveryOperatorEvaluates holds the two halves together: whatever internal/format accepts gives a value for at least
// one outcome here.
func TestEveryOperatorEvaluates(t *testing.T) {
	t.Parallel()
	args := map[string]string{
		"REQ": "user-agent", "RESP": "content-type", "TRAILER": "x-t", "REQ_WITHOUT_QUERY": ":path", "QUERY_PARAM": "a",
		"COMMON_DURATION": "DS_RX_BEG:DS_TX_END:us", "FILTER_STATE": format.GRPCStats,
	}
	for _, op := range format.Operators() {
		s := "%" + op + "%"
		if arg, ok := args[op]; ok {
			s = "%" + op + "(" + arg + ")%"
		}
		f, set := parse(t, s), false
		for _, o := range outcomes() {
			set = set || len(env.Append(nil, f, o, LogOmitEmpty)) > 0
		}
		if !set {
			t.Errorf("%s is accepted and never has a value", s)
		}
	}
}

// TestRewrittenRequest: what the exchange's headers say of the request as it stands goes before what came.
func TestRewrittenRequest(t *testing.T) {
	t.Parallel()
	o := outcomes()["flight"]
	o.Headers = headers{"request :authority": "new.example", "request :path": "/new", "request :method": "PUT"}
	f := parse(t, "%REQ(:AUTHORITY)% %REQ(:PATH)% %REQ(:METHOD)% %REQ(:SCHEME)% %REQUESTED_SERVER_NAME(HOST_FIRST)%")
	if got := string(env.Append(nil, f, o, Log)); got != "new.example /new PUT http new.example" {
		t.Errorf("got %s", got)
	}
	// CONNECT has no path: an empty one is unset, unlike an empty header.
	o.Path, o.Headers = nil, headers{"request :path": "", "request x-empty": ""}
	if got := string(env.Append(nil, parse(t, "[%REQ(:PATH)%] [%REQ(x-empty)%]"), o, Log)); got != "[-] []" {
		t.Errorf("got %s", got)
	}
}

func TestLocalTime(t *testing.T) {
	t.Parallel()
	o := outcomes()["post"]
	want := string(format.AppendTime(nil, "%F %T%z", time.Unix(0, o.Start)))
	if got := string(env.Append(nil, parse(t, "%START_TIME_LOCAL(%F %T%z)%"), o, Log)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestGRPCStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, trailer, header string
		status                int
		want                  string
	}{
		{"trailer wins", "5", "0", 200, "NotFound NOT_FOUND 5"},
		{"header", "", "16", 200, "Unauthenticated UNAUTHENTICATED 16"},
		{"beyond the list", "17", "", 200, "17 17 17"},
		{"not a number", "x", "", 200, "-1 -1 -1"},
		{"too long for a number", "12345678901", "", 200, "-1 -1 -1"},
		{"HTTP 200 without one", "", "", 200, "Unknown UNKNOWN 2"},
		{"HTTP 400", "", "", 400, "Internal INTERNAL 13"},
		{"HTTP 401", "", "", 401, "Unauthenticated UNAUTHENTICATED 16"},
		{"HTTP 403", "", "", 403, "PermissionDenied PERMISSION_DENIED 7"},
		{"HTTP 404", "", "", 404, "Unimplemented UNIMPLEMENTED 12"},
		{"HTTP 503", "", "", 503, "Unavailable UNAVAILABLE 14"},
		{"no answer", "", "", 0, "- - -"},
	}
	f := parse(t, "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%")
	for _, tt := range tests {
		h := headers{"request content-type": "application/grpc"}
		if tt.trailer != "" {
			h["trailer grpc-status"] = tt.trailer
		}
		if tt.header != "" {
			h["response grpc-status"] = tt.header
		}
		if got := string(env.Append(nil, f, &mesh.Outcome{Status: tt.status, Headers: h}, Log)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestHostnameWithoutPort(t *testing.T) {
	t.Parallel()
	f := parse(t, "%UPSTREAM_HOST_NAME_WITHOUT_PORT%")
	for name, want := range map[string]string{"a.b": "a.b", "a.b:80": "a.b", "[::1]:80": "[::1]", "[::1]": "[::1]", "::1": "::1", "2001:db8::1": "2001:db8::1"} {
		if got := string(env.Append(nil, f, &mesh.Outcome{UpstreamHostname: name}, Log)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestCommonDuration(t *testing.T) {
	t.Parallel()
	o := &mesh.Outcome{RequestEnd: 1e6, UpstreamStart: 2e6, UpstreamFirst: 4e6, UpstreamEnd: 8e6, Duration: 16e6}
	tests := map[string]string{
		"DS_RX_BEG:DS_RX_END": "1", "DS_RX_END:US_TX_BEG:us": "1000", "US_TX_BEG:US_RX_BEG:ns": "2000000", "US_RX_BEG:US_RX_END": "4",
		"US_RX_END:DS_TX_END": "8", "DS_RX_BEG:DS_TX_END:ms": "16", "DS_TX_END:DS_RX_BEG": "-",
	}
	for arg, want := range tests {
		if got := string(env.Append(nil, parse(t, "%COMMON_DURATION("+arg+")%"), o, Log)); got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
	}
	o.UpstreamFirst = -1
	if got := string(env.Append(nil, parse(t, "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG)%"), o, Log)); got != "-" {
		t.Errorf("a point that was not reached gives %s", got)
	}
}

// TestJSONValueLimit: a long value is cut, and the line stays valid JSON.
func TestJSONValueLimit(t *testing.T) {
	t.Parallel()
	o := outcomes()["hostile"]
	line := env.AppendJSON(nil, parseJSON(t, `{"long":"%REQ(x-long)%","both":"a%REQ(x-long)%b","n":"%BYTES_SENT%","k":"constant value"}`), o, false, 11)
	if want := `{"both":"a0123456789\u00c3b","k":"constant value","long":"0123456789\u00c3","n":467}` + "\n"; string(line) != want {
		t.Errorf("\n got %swant %s", line, want)
	}
}

// TestQueryDecoding was recorded from Envoy 1.40 with all bytes, but for "%4z%4": where Envoy drops the percent signs
// that are not part of an escape from QUERY_PARAMS(DECODED), they stay here.
func TestQueryDecoding(t *testing.T) {
	t.Parallel()
	o := &mesh.Outcome{Path: []byte("/?q=%20%21%22%41%3c%5C%7e%7F%C3%A9%4z%4&%61=1&a%20b=2&c%64=3")}
	tests := []struct{ in, want string }{
		{"%QUERY_PARAM(q)%", ` !"A<\~\x7fé%4z%4`},
		{"%QUERY_PARAMS(DECODED)%", `q=%20!%22A%3c%5C~%7F%C3%A9%4z%4&a=1&a%20b=2&cd=3`},
		{"%QUERY_PARAM(a b)%|%QUERY_PARAM(a)%|%QUERY_PARAM(%61)%|%QUERY_PARAM(cd)%", "2|1|-|3"},
	}
	for _, tt := range tests {
		if got := string(env.Append(nil, parse(t, tt.in), o, Log)); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	o := outcomes()["hostile"]
	got := env.Append([]byte("\x1b keep \n"), parse(t, "%REQ(:PATH)%"), o, Log)
	got = env.AppendJSON(got, parseJSON(t, `{"p":"%REQ(:PATH)%"}`), o, false, 0)
	want := "\x1b keep \n" + `/a\x1b[2J\x0d\x0a[forged] "GET /"` + `{"p":"/a\u001b[2J\r\n[forged] \"GET /\""}` + "\n"
	if string(got) != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// FuzzAppend: whatever a client sends, a text line has one end and a JSON line is one JSON object.
func FuzzAppend(f *testing.F) {
	f.Add([]byte("/path?q=%41&b"), []byte("agent"), []byte("h:80"))
	f.Add([]byte("\xff\x00?%"), []byte("\n\u009b"), []byte("]:"))
	text := parse(f, format.Default)
	ops := parse(f, "%PATH(NQ)% %QUERY_PARAM(q)% %QUERY_PARAMS(DECODED)% %REQ(user-agent):3% %REQUESTED_SERVER_NAME(HOST_FIRST)%")
	object := parseJSON(f, `{"p":"%PATH%","q":"%QUERY_PARAM(q)%","m":"é%REQ(user-agent):3%/%REQ(:authority)%"}`)
	f.Fuzz(func(t *testing.T, path, agent, host []byte) {
		o := outcomes()["post"]
		o.Path, o.UpstreamPath, o.Authority, o.Headers = path, nil, host, headers{"request user-agent": string(agent)}
		if line := env.Append(nil, text, o, Log); bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("line %q", line)
		}
		if line := env.Append(nil, ops, o, Log); bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("line %q", line)
		}
		if line := env.AppendJSON(nil, object, o, false, 0); !json.Valid(line) || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("line %q", line)
		}
	})
}

func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under -race")
	}
	o := outcomes()["post"]
	o.Headers, o.ServerName = fixed{}, "a-server-name-that-is-longer-than-32-bytes.example"
	f := parse(t, format.Default)
	all := parse(t, "%REQ(x)% %PATH(NQ)% %QUERY_PARAM(b)% %UPSTREAM_HOST_NAME% %RESPONSE_FLAGS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)% "+
		"%REQUESTED_SERVER_NAME(SNI_FIRST)% %GRPC_STATUS% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)% %START_TIME(%s.%3f)% %RESPONSE_CODE_DETAILS%")
	object := parseJSON(t, `{"a":"%REQ(x)%","b":["%DURATION%","%PATH%-%PROTOCOL%"],"c":{"d":"%UPSTREAM_HOST%"}}`)
	buf := make([]byte, 0, 4096)
	n := testing.AllocsPerRun(100, func() {
		buf = env.Append(buf[:0], f, o, Log)
		buf = env.Append(buf, all, o, Header)
		buf = env.AppendJSON(buf, object, o, true, 0)
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// fixed answers every look-up with one value that needs escaping.
type fixed struct{}

var wild = []byte("va\"lue\xff\x01")

func (fixed) RequestHeader(string) []byte   { return wild }
func (fixed) ResponseHeader(string) []byte  { return wild }
func (fixed) ResponseTrailer(string) []byte { return nil }

func BenchmarkDefault(b *testing.B) {
	o, f := outcomes()["gone"], parse(b, format.Default)
	o.Headers = fixed{}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = env.Append(buf[:0], f, o, Log)
	}
}

func BenchmarkJSON(b *testing.B) {
	o := outcomes()["gone"]
	o.Headers = fixed{}
	object := parseJSON(b, `{"start":"%START_TIME%","method":"%REQ(:METHOD)%","path":"%PATH%","code":"%RESPONSE_CODE%",`+
		`"flags":"%RESPONSE_FLAGS%","duration":"%DURATION%","agent":"%REQ(USER-AGENT)%","host":"%UPSTREAM_HOST%"}`)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = env.AppendJSON(buf[:0], object, o, false, 0)
	}
}
