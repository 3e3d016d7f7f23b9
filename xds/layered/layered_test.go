// SPDX-License-Identifier: Apache-2.0

package layered_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/layered"
)

// read is a key read in every type, with 7 of 9, 7, 7 and false where there is nothing to read.
func read(k mesh.RuntimeKey) string {
	num, den := k.Fraction(7, 9)
	return fmt.Sprintf("%d/%d %d %v %v", num, den, k.Integer(7), k.Double(7), k.Bool(false))
}

// TestValues: the values of Envoy's SnapshotImpl, where it says something of them.
func TestValues(t *testing.T) {
	t.Parallel()
	const none = "7/9 7 7 false"
	for text, want := range map[string]string{
		"":                                   none,
		"abc":                                none,
		"5":                                  "5/100 5 5 true",
		" 5\t":                               "5/100 5 5 true",
		"0":                                  "0/100 0 0 false",
		"250":                                "100/100 250 250 true",
		"1.5":                                "7/9 7 1.5 true",
		"-3":                                 "7/9 7 -3 true",
		"1e30":                               "7/9 7 1e+30 true",
		"true":                               "7/9 7 7 true",
		"FALSE":                              none,
		"numerator: 3":                       "3/100 7 7 false",
		"numerator: 3\ndenominator: MILLION": "3/1000000 7 7 false",
		`{"numerator":3,"denominator":"TEN_THOUSAND"}`: "3/10000 7 7 false",
		`{"numerator":3,"denominator":1}`:              "3/10000 7 7 false",
		"numerator: 3\ndenominator: BILLION":           none,
		"numerator: -3":                                none,
		"numerator: 3\nnominator: MILLION":             none,
		"numerator: [":                                 none,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			r := layered.New()
			_ = r.Configure([]layered.Layer{{Name: "a", Values: map[string]layered.Value{"k": layered.Parse(text)}}})
			if got := read(r.Key("k")); got != want {
				t.Errorf("%q reads as %s, want %s", text, got, want)
			}
		})
	}
}

func TestFromStruct(t *testing.T) {
	t.Parallel()
	many := map[string]any{}
	for i := range 10_001 {
		many[fmt.Sprint(i)] = true
	}
	for name, c := range map[string]struct {
		in   map[string]any
		want string
	}{
		"nested": {map[string]any{"a": map[string]any{"b": 1.0, "c.d": "x"}, "e": true}, "a.b=1 a.c.d=x e=true"},
		"shares": {map[string]any{"f": map[string]any{"numerator": 1.0}}, `f={"numerator":1}`},
		"empty":  {map[string]any{"f": map[string]any{}}, "f={}"},
		"small":  {map[string]any{"f": 0.000001, "g": 1e30}, "f=0.000001 g=1e30"},
		"list":   {map[string]any{"a": map[string]any{"b": []any{}}}, `error: the key "a.b" has a value of a type`},
		"null":   {map[string]any{"a": nil}, `error: the key "a" has a value of a type`},
		"long":   {map[string]any{"a": strings.Repeat("x", 65<<10)}, `error: the key "a" has more than the 65536 bytes allowed`},
		"many":   {many, "error: there are more than 10000 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := structpb.NewStruct(c.in)
			if err != nil {
				t.Fatal(err)
			}
			values, err := layered.FromStruct(m)
			var out []string
			for _, k := range []string{"a.b", "a.c.d", "e", "f", "g"} {
				if v, ok := values[k]; ok {
					out = append(out, k+"="+v.Text)
				}
			}
			got := strings.Join(out, " ")
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// write writes files below a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestLayersOnDisk: directories are prefixes, comments and blanks at the end are nothing, and the directory of the proxy's
// cluster overrides the common one.
func TestLayersOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"v1/envoy/a": "# why\n5\n\n", "v1/envoy/routing/b": "x\n# y\nz", "v1/envoy/c": "only here", "v1/over/web/a": "6",
	})
	link(t, "v1", filepath.Join(dir, "current"))
	if err := os.Symlink(filepath.Join(dir, "v1/envoy/c"), filepath.Join(dir, "v1/envoy/linked")); err != nil {
		t.Fatal(err)
	}
	root, reg := filepath.Join(dir, "current"), stats.NewRegistry(stats.Options{})
	r := layered.New()
	err := r.Configure([]layered.Layer{
		{Name: "disk", Kind: layered.Disk, Root: root, Dir: filepath.Join(root, "envoy")},
		{Name: "none", Kind: layered.Disk, Root: root, Dir: filepath.Join(root, "over/other")},
		{Name: "mine", Kind: layered.Disk, Root: root, Dir: filepath.Join(root, "over/web")},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Publish(reg)
	names, entries := r.Dump()
	want := map[string]layered.Entry{
		"a": {Layers: []string{"5", "6"}, Final: "6"}, "routing.b": {Layers: []string{"x\nz", ""}, Final: "x\nz"},
		"c": {Layers: []string{"only here", ""}, Final: "only here"}, "linked": {Layers: []string{"only here", ""}, Final: "only here"},
	}
	if !reflect.DeepEqual(entries, want) || !reflect.DeepEqual(names, []string{"disk", "mine"}) {
		t.Errorf("got %v %q", names, entries)
	}
	if got, want := numbers(reg), "admin_overrides_active=0 deprecated_feature_seen_since_process_start=0 deprecated_feature_use=0 "+
		"load_error=0 load_success=2 num_keys=4 num_layers=2 override_dir_exists=2 override_dir_not_exists=0"; got != want {
		t.Errorf("numbers:\n%s\nwant\n%s", got, want)
	}
}

func TestLayersOnDiskThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"deep/" + strings.Repeat("d/", 20) + "a": "1", "long/a": strings.Repeat("x", 65<<10)})
	for name, want := range map[string]string{
		"deep": "is deeper than 16 directories", "long": "has more than the 65536 bytes allowed", "deep/d": "is deeper than",
	} {
		r := layered.New()
		root := filepath.Join(dir, name)
		err := r.Configure([]layered.Layer{{Name: "x", Kind: layered.Disk, Root: root, Dir: root}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if names, _ := r.Dump(); len(names) != 0 {
			t.Errorf("%s: layers %v, want none", name, names)
		}
	}
}

// numbers lists runtime.*.
func numbers(reg *stats.Registry) string {
	var out []string
	reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if name, ok := strings.CutPrefix(string(m.AppendName(nil)), "runtime."); ok {
			out = append(out, fmt.Sprintf("%s=%d", name, m.Value))
		}
		return true
	})
	return strings.Join(out, " ")
}

// TestLinkIsTurned: a layer on disk is read again when its link leads elsewhere, and not when something beside it changes.
func TestLinkIsTurned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"v1/a": "1", "v2/a": "2", "v2/b": "new"})
	root := filepath.Join(dir, "current")
	link(t, "v1", root)
	r := layered.New()
	if err := r.Configure([]layered.Layer{{Name: "disk", Kind: layered.Disk, Root: root, Dir: root}}); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 10)
	r.Told(func() { changed <- struct{}{} })
	link(t, "v2", root) // before Watch: it must not go by
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Watch(ctx, zap.NewNop()) })
	defer wg.Wait()
	defer cancel()
	<-changed
	if got := r.Key("a").Integer(0); got != 2 {
		t.Errorf("a = %d, want 2", got)
	}
	write(t, dir, map[string]string{"v3/a": "3", "beside": ""})
	link(t, "v3", root)
	<-changed
	if got := r.Key("a").Integer(0); got != 3 {
		t.Errorf("a = %d, want 3", got)
	}
	if _, entries := r.Dump(); len(entries) != 1 {
		t.Errorf("what was taken away is still there: %v", entries)
	}
}

func TestModify(t *testing.T) {
	t.Parallel()
	r, reg := layered.New(), stats.NewRegistry(stats.Options{})
	r.Publish(reg)
	if err := r.Modify(map[string]string{"a": "1"}); err != layered.ErrNoAdmin {
		t.Errorf("without a layer: %v", err)
	}
	if err := r.Configure([]layered.Layer{
		{Name: "s", Values: map[string]layered.Value{"a": layered.Parse("1")}}, {Name: "admin", Kind: layered.Admin},
	}); err != nil {
		t.Fatal(err)
	}
	a := r.Key("a")
	for _, c := range []struct {
		set    map[string]string
		want   uint64
		active string
	}{
		{map[string]string{"a": "2", "b": "3"}, 2, "admin_overrides_active=1"},
		{map[string]string{"a": ""}, 1, "admin_overrides_active=1"},
		{map[string]string{"b": "", "c": ""}, 1, "admin_overrides_active=0"},
	} {
		if err := r.Modify(c.set); err != nil {
			t.Fatal(err)
		}
		if got := a.Integer(0); got != c.want || !strings.Contains(numbers(reg), c.active) {
			t.Errorf("after %v: a = %d, %s; want %d, %s", c.set, got, numbers(reg), c.want, c.active)
		}
	}
	many := map[string]string{}
	for i := range 10_001 {
		many[fmt.Sprint(i)] = "1"
	}
	if err := r.Modify(many); err != layered.ErrFull {
		t.Errorf("too many: %v", err)
	}
	if got := r.Key("1").Integer(0); got != 0 {
		t.Error("a change that was refused is in force")
	}
}

// TestWhatNobodyReads: keys are counted that are known to mean nothing, and that nothing has named.
func TestWhatNobodyReads(t *testing.T) {
	t.Parallel()
	r, reg := layered.New(), stats.NewRegistry(stats.Options{})
	r.Publish(reg)
	values := map[string]layered.Value{}
	for _, k := range []string{"canary", "cannary", "envoy.reloadable_features.x", "upstream.use_http3",
		"health_check.named", "upstream.healthy_panic_threshold", "circuit_breakers.a.default.max_retries",
		"upstream.maintenance_mode.a", "upstream.maintenance_mode.b"} {
		values[k] = layered.Parse("1")
	}
	if err := r.Configure([]layered.Layer{{Name: "s", Values: values}}); err != nil {
		t.Fatal(err)
	}
	named := []mesh.RuntimeKey{r.Key("canary"), r.Key("health_check.named")}
	defer runtime.KeepAlive(named)
	var got []string
	reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if name := string(m.AppendName(nil)); strings.HasPrefix(name, "meshtap_runtime") {
			got = append(got, fmt.Sprintf("%s=%d", name, m.Value))
		}
		return true
	})
	if want := "[meshtap_runtime_keys_unread=1 meshtap_runtime_keys_without_effect=2]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	inert, unread := r.Idle()
	if got, want := fmt.Sprint(inert, unread), "[envoy.reloadable_features.x upstream.use_http3] [cannary]"; got != want {
		t.Errorf("idle: %s, want %s", got, want)
	}
	r.SetClusters(func(name string) bool { return name == "a" })
	if _, unread := r.Idle(); fmt.Sprint(unread) != "[cannary upstream.maintenance_mode.b]" {
		t.Errorf("unread, where there is the cluster a: %s", unread)
	}
}

// TestGenerations: what looks at values when they change is told of each change, and finds another generation.
func TestGenerations(t *testing.T) {
	t.Parallel()
	r := layered.New()
	if err := r.Configure([]layered.Layer{{Name: "a", Kind: layered.Admin}}); err != nil {
		t.Fatal(err)
	}
	var seen []string
	generation := r.Generation()
	r.Told(func() {
		if now := r.Generation(); now == generation {
			t.Errorf("a change, and the generation is %d as before", now)
		} else {
			generation = now
		}
		seen = append(seen, fmt.Sprint(r.Integer("k", 7), r.Double("k", 0.5)))
	})
	for _, v := range []string{"3", "1.5", ""} {
		if err := r.Modify(map[string]string{"k": v}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := strings.Join(seen, ", "), "3 3, 7 1.5, 7 0.5"; got != want {
		t.Errorf("seen %s, want %s", got, want)
	}
}

// TestSnapshotsAreWhole: who reads while a layer changes gets the old or the new value.
func TestSnapshotsAreWhole(t *testing.T) {
	t.Parallel()
	r := layered.New()
	if err := r.Configure([]layered.Layer{{Name: "a", Kind: layered.Admin}}); err != nil {
		t.Fatal(err)
	}
	k := r.Key("k")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if n := k.Integer(1); n != 1 && n != 2 {
					t.Errorf("read %d", n)
				}
			}
		})
	}
	for range 200 {
		_ = r.Modify(map[string]string{"k": "2"})
		_ = r.Modify(map[string]string{"k": ""})
	}
	wg.Wait()
}

func TestKeysAllocateNothing(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	r := layered.New()
	_ = r.Configure([]layered.Layer{{Name: "a", Values: map[string]layered.Value{"k": layered.Parse("5")}}})
	for _, name := range []string{"k", "not there"} {
		f := &mesh.Fraction{Numerator: 1, Denominator: 100, Runtime: r.Key(name)}
		k := r.Key(name)
		if n := testing.AllocsPerRun(1000, func() {
			f.Covers(3)
			k.Integer(1)
			k.Double(1)
			k.Bool(true)
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "1", "true", "numerator: 3", `{"numerator":3,"denominator":"MILLION"}`, "numerator: &a [*a]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := layered.New()
		_ = r.Configure([]layered.Layer{{Name: "a", Values: map[string]layered.Value{"k": layered.Parse(s)}}})
		if _, den := r.Key("k").Fraction(1, 1); den == 0 {
			t.Errorf("%q is a share of 0", s)
		}
		(&mesh.Fraction{Numerator: 1, Denominator: 1, Runtime: r.Key("k")}).Covers(1)
	})
}
