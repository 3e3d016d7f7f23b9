// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/sys"
)

// input lends crypto/tls a buffer to read into for as long as there are bytes. Left alone, crypto/tls keeps what it once
// needed, so that every connection on which a large record came would hold up to 40 KiB while it is idle. It belongs to
// the reader.
type input struct {
	tls *sys.TLSBuffers // nil where crypto/tls does not let us
	buf *bytebuf.Buf    // lent to crypto/tls; nil while there are no bytes
}

// init lets go of what the handshake needed. What has come behind it stays.
func (i *input) init(c *tls.Conn) {
	if i.tls = sys.BuffersOf(c); i.tls != nil {
		i.shrink()
	}
}

// take lends a buffer. Where a record has come in part, it has a buffer of its own already.
func (i *input) take(bufs *bytebuf.Pool) {
	if i.tls == nil || i.buf != nil || i.tls.Raw.Len() > 0 {
		return
	}
	i.buf = bufs.Get()
	*i.tls.Raw = *bytes.NewBuffer(i.buf.Free()[:0])
}

// put takes the buffer back once crypto/tls has read all that it can. All application bytes were taken.
func (i *input) put(bufs *bytebuf.Pool) {
	if i.tls == nil || i.buf == nil && i.tls.Raw.Len() > 0 {
		return
	}
	i.tls.Input.Reset(nil)
	i.shrink()
	i.drop(bufs)
}

// The parts of a record (RFC 8446 5.1).
const (
	recordHeader   = 5
	maxRecordBytes = recordHeader + 16<<10 + 256
)

// shrink leaves crypto/tls what it has not used yet, and nothing else. What has come of a record gets room for the rest of
// it, so that one that comes byte by byte is copied once.
func (i *input) shrink() {
	rest := i.tls.Raw.Bytes()
	var own []byte
	if n := len(rest); n > 0 {
		if n >= recordHeader {
			n = max(n, min(recordHeader+int(rest[3])<<8+int(rest[4]), maxRecordBytes))
		}
		own = append(make([]byte, 0, n+bytes.MinRead), rest...)
	}
	*i.tls.Raw = *bytes.NewBuffer(own)
	if i.tls.Hand.Len() == 0 {
		*i.tls.Hand = bytes.Buffer{}
	}
}

// drop gives the buffer back. If crypto/tls still has it, it must not be used again.
func (i *input) drop(bufs *bytebuf.Pool) {
	if i.buf != nil {
		bufs.Put(i.buf)
		i.buf = nil
	}
}
