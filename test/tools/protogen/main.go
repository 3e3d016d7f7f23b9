// SPDX-License-Identifier: Apache-2.0

// Protogen compiles the .proto files below a folder and writes the generated Go beside them. It needs no protoc: the
// compiler is a library, the plugin is the pinned protoc-gen-go, run through the go command.
//
//	protogen [-check] DIR
//
// With -check it writes nothing and fails where a generated file is missing, stale or without a .proto.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const plugin = "google.golang.org/protobuf/cmd/protoc-gen-go"

func main() {
	check := flag.Bool("check", false, "write nothing; fail where a generated file is not what it should be")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: protogen [-check] DIR")
		os.Exit(2)
	}
	if err := run(context.Background(), flag.Arg(0), *check); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, check bool) error {
	protos, old, err := find(dir)
	if err != nil {
		return err
	}
	req, err := compile(ctx, dir, protos)
	if err != nil {
		return err
	}
	files, err := generate(ctx, req)
	if err != nil {
		return err
	}
	var stale []error
	for _, f := range files {
		path := filepath.Join(dir, f.GetName())
		old = slices.DeleteFunc(old, func(o string) bool { return o == f.GetName() })
		have, err := os.ReadFile(path)
		if err == nil && string(have) == f.GetContent() {
			continue
		}
		if check {
			stale = append(stale, fmt.Errorf("%s is stale; run make generate", path))
			continue
		}
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	for _, o := range old {
		stale = append(stale, fmt.Errorf("%s has no .proto; remove it", filepath.Join(dir, o)))
	}
	return errors.Join(stale...)
}

// find returns the .proto and .pb.go files below dir, relative to it, in lexical order.
func find(dir string) (protos, generated []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case strings.HasSuffix(rel, ".proto"):
			protos = append(protos, rel)
		case strings.HasSuffix(rel, ".pb.go"):
			generated = append(generated, rel)
		}
		return nil
	})
	return protos, generated, err
}

// compile makes the plugin's request: every file with those it imports before it.
func compile(ctx context.Context, dir string, protos []string) (*pluginpb.CodeGeneratorRequest, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(ctx, protos...)
	if err != nil {
		return nil, err
	}
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: protos, Parameter: proto.String("paths=source_relative")}
	seen := map[string]bool{}
	for _, f := range files {
		req.ProtoFile = appendDeps(req.ProtoFile, f, seen)
	}
	return req, nil
}

func appendDeps(dst []*descriptorpb.FileDescriptorProto, f protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[f.Path()] {
		return dst
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		dst = appendDeps(dst, f.Imports().Get(i).FileDescriptor, seen)
	}
	return append(dst, protoutil.ProtoFromFileDescriptor(f))
}

// generate runs the plugin.
func generate(ctx context.Context, req *pluginpb.CodeGeneratorRequest) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	in, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "run", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", plugin, err)
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &resp); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", plugin, err)
	}
	if resp.Error != nil {
		return nil, fmt.Errorf("%s: %s", plugin, resp.GetError())
	}
	return resp.File, nil
}
