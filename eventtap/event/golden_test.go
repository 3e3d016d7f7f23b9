// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/eventtap/event"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestGolden holds an event of each kind, as full as it gets and as empty as it may be, against testdata/golden.txtar: the
// bytes on the wire stay what they are, and what is stored there is read as the same event.
func TestGolden(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "golden.txtar")
	var ar txtar.Archive
	if !*rewrite {
		stored, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ar = *stored
	}
	n := 0
	hold := func(name string, e *event.Event, got []byte, read func([]byte) []byte) {
		n++
		if *rewrite {
			ar.Files = append(ar.Files, txtar.File{Name: name, Data: got})
			return
		}
		i := slices.IndexFunc(ar.Files, func(f txtar.File) bool { return f.Name == name })
		if i < 0 {
			t.Errorf("there is no %s; run with -rewrite", name)
			return
		}
		want := ar.Files[i].Data
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
		}
		var back event.Event
		if err := back.Decode(read(want)); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if err := event.Equal(e, &back); err != nil {
			t.Errorf("%s is read as something else: %v", name, err)
		}
	}
	for k := event.Request; k < event.NumKinds; k++ {
		least := new(event.Event)
		least.Reset(k)
		least.ID, least.Source = []byte("1"), []byte("/")
		for _, c := range []struct {
			name string
			e    *event.Event
		}{{"full", event.Full(k)}, {"least", least}} {
			hold(k.String()+"-"+c.name+".json", c.e, lines(c.e.AppendJSON(nil)), joined)
			hold(k.String()+"-"+c.name+".pb.hex", c.e, dump(c.e.AppendProto(nil)), bytesOf)
		}
	}
	if *rewrite {
		if err := os.WriteFile(path, txtar.Format(&ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(ar.Files) != n {
		t.Errorf("%s has %d files, want %d", path, len(ar.Files), n)
	}
}

// lines puts each member on a line of its own, for reading; joined takes that back.
func lines(js []byte) []byte {
	s := strings.ReplaceAll(string(js), `,"`, ",\n\"")
	return []byte(strings.ReplaceAll(s, `{"`, "{\n\"") + "\n")
}

func joined(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\n"), nil) }

// dump writes bytes as lines of hexadecimal digits; bytesOf takes that back.
func dump(b []byte) []byte {
	var out []byte
	for part := range slices.Chunk(b, 48) {
		out = append(hex.AppendEncode(out, part), '\n')
	}
	return out
}

func bytesOf(text []byte) []byte {
	b, err := hex.AppendDecode(nil, joined(text))
	if err != nil {
		return nil
	}
	return b
}
