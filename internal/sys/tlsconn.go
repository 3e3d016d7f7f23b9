// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// TLSBuffers are where a TLS connection keeps what it has read: records as they came, in Raw; the application's bytes that
// nobody has taken yet, which are in Raw's memory, in Input; parts of handshake messages in Hand. crypto/tls never lets go
// of them, which for an idle connection is up to 40 KiB that hold nothing. They may be looked at and replaced only while
// no other goroutine reads from the connection.
type TLSBuffers struct {
	Raw, Hand *bytes.Buffer
	Input     *bytes.Reader
}

// BuffersOf returns the buffers of a connection; nil where this version of crypto/tls does not have them under these names
// and types.
func BuffersOf(c *tls.Conn) *TLSBuffers {
	raw := fieldOf(c, "rawInput", reflect.TypeFor[bytes.Buffer]())
	hand := fieldOf(c, "hand", reflect.TypeFor[bytes.Buffer]())
	input := fieldOf(c, "input", reflect.TypeFor[bytes.Reader]())
	if raw == nil || hand == nil || input == nil {
		return nil
	}
	return &TLSBuffers{Raw: (*bytes.Buffer)(raw), Hand: (*bytes.Buffer)(hand), Input: (*bytes.Reader)(input)}
}

// fieldOf returns where a field of a connection is, nil where there is none of this name and type.
func fieldOf(c *tls.Conn, name string, t reflect.Type) unsafe.Pointer {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	if !ok || f.Type != t || len(f.Index) != 1 {
		return nil
	}
	return unsafe.Add(unsafe.Pointer(c), f.Offset)
}
