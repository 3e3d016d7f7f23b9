// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// api is the folder of the .proto files.
var api = filepath.Join("..", "..", "..", "api")

// TestCheckedIn fails where the generated Go below api is not what its .proto files say.
func TestCheckedIn(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), api, true); err != nil {
		t.Error(err)
	}
}

// TestDocumented fails where something of Meshtap's own messages has no comment. Those of CloudEvents are documented by
// their specification.
func TestDocumented(t *testing.T) {
	t.Parallel()
	missing, seen := undocumented(t, api, "io.cloudevents.v1")
	if len(missing) > 0 || seen < 150 {
		t.Errorf("no comment: %q, of %d", missing, seen)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.proto"), strings.Replace(sample, "message", "// Sample is one.\nmessage", 1))
	if missing, seen := undocumented(t, dir, ""); !slices.Equal(missing, []string{"test.v1.Sample.wait"}) || seen != 2 {
		t.Errorf("no comment: %q, of %d", missing, seen)
	}
}

// undocumented returns the names of the messages, fields, enumerations and their values below dir that have no comment
// before them, and how many there are in all. Those of one package are passed over.
func undocumented(t *testing.T, dir string, but protoreflect.FullName) (missing []string, seen int) {
	t.Helper()
	protos, _, err := find(dir)
	if err != nil {
		t.Fatal(err)
	}
	req, err := compile(t.Context(), dir, protos)
	if err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: req.ProtoFile})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range protos {
		f, err := files.FindFileByPath(path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Package() == but {
			continue
		}
		for _, d := range descriptors(f) {
			seen++
			if f.SourceLocations().ByDescriptor(d).LeadingComments == "" {
				missing = append(missing, string(d.FullName()))
			}
		}
	}
	return missing, seen
}

// container is what messages and enumerations stand in: a file or a message.
type container interface {
	Messages() protoreflect.MessageDescriptors
	Enums() protoreflect.EnumDescriptors
}

// descriptors returns all messages, fields, enumerations and their values.
func descriptors(in container) (out []protoreflect.Descriptor) {
	for i := range in.Enums().Len() {
		e := in.Enums().Get(i)
		out = append(out, e)
		for v := range e.Values().Len() {
			out = append(out, e.Values().Get(v))
		}
	}
	for i := range in.Messages().Len() {
		m := in.Messages().Get(i)
		out = append(out, m)
		for f := range m.Fields().Len() {
			out = append(out, m.Fields().Get(f))
		}
		out = append(out, descriptors(m)...)
	}
	return out
}

const sample = `// SPDX-License-Identifier: Apache-2.0

syntax = "proto3";
package test.v1;
import "google/protobuf/duration.proto";
option go_package = "example.com/test/v1;testv1";
message Sample { google.protobuf.Duration wait = 1; }
`

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "test", "v1", "a.proto"), filepath.Join(dir, "test", "v1", "a.pb.go")
	write(t, in, sample)
	if err := run(t.Context(), dir, true); err == nil || !strings.Contains(err.Error(), "a.pb.go is stale") {
		t.Errorf("a file that is missing: %v", err)
	}
	if err := run(t.Context(), dir, false); err != nil {
		t.Fatal(err)
	}
	first := read(t, out)
	if !strings.HasPrefix(first, "// SPDX-License-Identifier: Apache-2.0\n\n// Code generated") || !strings.Contains(first, "package testv1") {
		t.Errorf("%.200s", first)
	}
	if err := run(t.Context(), dir, false); err != nil || read(t, out) != first {
		t.Errorf("the second run gives something else: %v", err)
	}
	if err := run(t.Context(), dir, true); err != nil {
		t.Error(err)
	}
	write(t, in, strings.Replace(sample, "wait", "pause", 1))
	if err := run(t.Context(), dir, true); err == nil || read(t, out) != first {
		t.Errorf("a file that is stale: %v", err)
	}
	write(t, in, sample)
	write(t, filepath.Join(dir, "test", "v1", "b.pb.go"), "package testv1")
	if err := run(t.Context(), dir, true); err == nil || !strings.Contains(err.Error(), "b.pb.go has no .proto") {
		t.Errorf("a file without a .proto: %v", err)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bad.proto"), strings.Replace(sample, "Duration wait", "Nothing wait", 1))
	if err := run(t.Context(), dir, false); err == nil || !strings.Contains(err.Error(), "bad.proto:7:") {
		t.Errorf("%v", err)
	}
}
