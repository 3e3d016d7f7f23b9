// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
)

// Envoy's content types.
const (
	typeText = "text/plain; charset=UTF-8"
	typeJSON = "application/json"
	typeHTML = "text/html; charset=UTF-8"
)

// answer is a response: a body, or what writes one.
type answer struct {
	status      int
	contentType string
	header      map[string]string
	body        []byte
	// write writes a body of unknown size.
	write func(context.Context, io.Writer) error
	// stream says that the body goes on until the client leaves; each Write is sent at once.
	stream bool
	// release gives back what the answer holds; see done.
	release func()
}

// done gives back what the answer holds.
func (a *answer) done() {
	if a.release != nil {
		a.release()
		a.release = nil
	}
}

// text returns an answer in plain text. s is clean.
func text(status int, s string) *answer {
	return &answer{status: status, contentType: typeText, body: []byte(s)}
}

// ok is Envoy's answer to what was done.
func ok() *answer { return text(http.StatusOK, "OK\n") }

// jsonAnswer returns v as JSON, indented as Envoy indents.
func jsonAnswer(v any) (*answer, error) {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, fmt.Errorf("admin: write JSON: %w", err)
	}
	var out bytes.Buffer
	j := &jsonWriter{w: bufio.NewWriter(&out)}
	_, _ = j.Write(append(b, '\n'))
	j.Flush() // writing to a bytes.Buffer does not fail
	return &answer{status: http.StatusOK, contentType: typeJSON, body: out.Bytes()}, nil
}

// writeText returns an answer in plain text of any size. What write writes is clean.
func writeText(write func(*bufio.Writer) error) *answer {
	return &answer{status: http.StatusOK, contentType: typeText, write: func(_ context.Context, w io.Writer) error {
		b := bufio.NewWriterSize(w, 32<<10)
		if err := write(b); err != nil {
			return err
		}
		return b.Flush()
	}}
}

// writeJSON returns an answer in JSON of any size.
func writeJSON(write func(io.Writer) error) *answer {
	return &answer{status: http.StatusOK, contentType: typeJSON, write: func(_ context.Context, w io.Writer) error {
		j := &jsonWriter{w: bufio.NewWriterSize(w, 32<<10)}
		if err := write(j); err != nil {
			return err
		}
		return j.Flush()
	}}
}

// body lets fasthttp pull an answer: it is written on the connection's own goroutine, chunk by chunk. An error breaks the
// chunked framing off, so that the client sees that something is missing.
type body struct {
	*answer
	server *Server
	conn   *conn
}

// Read is never called: fasthttp prefers WriteTo.
func (b *body) Read([]byte) (int, error) { return 0, errors.New("admin: the body can only be written") }

// SupportsBodyWriteTo says so.
func (b *body) SupportsBodyWriteTo() bool { return true }

// WriteTo writes the body.
func (b *body) WriteTo(w io.Writer) (n int64, err error) {
	out := &counting{w: w}
	defer func() {
		if p := recover(); p != nil {
			b.server.deps.Log.Error("an admin answer panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			n, err = out.n, errors.New("admin: panic")
		}
	}()
	if b.stream {
		err = b.conn.stream(func(ctx context.Context) error { return b.write(ctx, out) })
	} else {
		err = b.write(context.Background(), out)
	}
	if err != nil && out.err == nil && !errors.Is(err, context.Canceled) {
		b.server.deps.Log.Warn("an admin answer broke off", zap.Error(err))
	}
	return out.n, err
}

// Close is called when the body was written.
func (b *body) Close() error {
	b.done()
	return nil
}

// counting counts the bytes and keeps the error that the client caused.
type counting struct {
	w   io.Writer
	n   int64
	err error
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

var _ fasthttp.BodyWriterTo = (*body)(nil)
