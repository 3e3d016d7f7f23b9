// SPDX-License-Identifier: Apache-2.0

package als

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// method is envoy.service.accesslog.v3.AccessLogService.StreamAccessLogs.
const method = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

// connectTimeout bounds an attempt to connect.
const connectTimeout = 5 * time.Second

// Target is where a service is, and who asks.
type Target struct {
	// Dial connects, TLS included. nil leaves it to gRPC, which finds Address by its own rules of naming, in plain text.
	Dial    func(ctx context.Context) (net.Conn, error)
	Address string
	// Authority is the :authority of the stream, and Metadata more of its headers, names and values in turn.
	Authority string
	Metadata  []string
	// Node is a serialized envoy.config.core.v3.Node, and LogName what this log is called.
	Node    []byte
	LogName string
}

// Stream is a stream of entries, which may be opened again. It is used by one goroutine at a time.
type Stream struct {
	target Target
	conn   *grpc.ClientConn
	stream grpc.ClientStream // nil where it is not open
	cancel context.CancelFunc
	named  bool // the service knows who we are
}

// NewStream returns a stream that is not open.
func NewStream(t Target) *Stream { return &Stream{target: t} }

// Open connects, unless the stream is open. It lasts as long as ctx.
func (s *Stream) Open(ctx context.Context) error {
	if s.stream != nil {
		return nil
	}
	t := &s.target
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // Dial has seen to TLS
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(), grpc.WithUserAgent("meshtap"),
	}
	address := t.Address
	var why atomic.Pointer[error] // of the last dial, which gRPC would tell as text alone
	if t.Dial != nil {
		address = "passthrough:///als"
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := t.Dial(ctx)
			if err != nil {
				why.Store(&err)
			}
			return c, err
		}))
	}
	if t.Authority != "" {
		opts = append(opts, grpc.WithAuthority(t.Authority))
	}
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		return err
	}
	if len(t.Metadata) > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, t.Metadata...)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method, grpc.ForceCodecV2(raw{}))
	if err != nil {
		cancel()
		_ = conn.Close()
		if dialing := why.Load(); dialing != nil {
			err = *dialing
		}
		return err
	}
	s.conn, s.stream, s.cancel, s.named = conn, stream, cancel, false
	return nil
}

// Names says who we are towards the service, before the first Send: a node with this id.
func (s *Stream) Names(id string) { s.target.Node = appendString(nil, 1, id) }

// Send sends entries of one kind, which Append made, as one message. It waits as long as the service does not read, and
// ctx is not over. The bytes must not change any more. After an error the stream is closed; the entries may have to be
// sent again.
func (s *Stream) Send(ctx context.Context, kind Kind, entries []byte) error {
	defer context.AfterFunc(ctx, s.cancel)()
	var head []byte
	if !s.named {
		var at int
		head, at = open(nil, 1)
		if len(s.target.Node) > 0 {
			head = protowire.AppendBytes(protowire.AppendTag(head, 1, protowire.BytesType), s.target.Node)
		}
		head = end(appendString(head, 2, s.target.LogName), at)
	}
	head = protowire.AppendTag(head, protowire.Number(kind), protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(entries)))
	err := s.stream.SendMsg(mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(entries)})
	if err == nil {
		s.named = true
		return nil
	}
	if errors.Is(err, io.EOF) { // the service has ended the stream
		err = s.stream.RecvMsg(nil)
	}
	s.Close()
	return fmt.Errorf("access log service: %w", err)
}

// Finish ends the stream, and waits until the service has read it to its end, has ended it itself, or ctx is over.
func (s *Stream) Finish(ctx context.Context) {
	if s.stream == nil {
		return
	}
	defer context.AfterFunc(ctx, s.cancel)()
	if s.stream.CloseSend() == nil {
		_ = s.stream.RecvMsg(nil) // an answer that says nothing, or the end
	}
	s.Close()
}

// Close gives the stream up; what was sent may not arrive.
func (s *Stream) Close() {
	if s.stream != nil {
		s.cancel()
		_ = s.conn.Close()
		s.stream = nil
	}
}

// raw sends what is encoded already, and reads nothing.
type raw struct{}

// Marshal implements encoding.CodecV2.
func (raw) Marshal(v any) (mem.BufferSlice, error) { return v.(mem.BufferSlice), nil }

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }

// Name implements encoding.CodecV2.
func (raw) Name() string { return "proto" }
