// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckedIn fails where the generated Go below api is not what its .proto files say.
func TestCheckedIn(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), filepath.Join("..", "..", "..", "api"), true); err != nil {
		t.Error(err)
	}
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
