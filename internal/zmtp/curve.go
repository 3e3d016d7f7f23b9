// SPDX-License-Identifier: Apache-2.0

package zmtp

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"golang.org/x/crypto/nacl/box"
)

// Curve are the keys of the mechanism CURVE (CurveZMQ 1.0, ZeroMQ RFC 26): the server proves that it has its secret key, the
// client too, and all that follows is encrypted with keys that die with the connection.
type Curve struct {
	// Secret is the secret key of this side.
	Secret Key
	// Server is the public key of the server, for a client.
	Server Key
	// Clients are the public keys that a server lets in.
	Clients []Key
}

// The sizes of what CURVE sends, in bytes.
const (
	nonceSize   = 8  // of a nonce that counts
	longSize    = 16 // of one that is random
	cookieSize  = 96
	vouchSize   = longSize + 2*32 + box.Overhead
	helloSize   = 2 + 72 + 32 + nonceSize + 64 + box.Overhead
	welcomeSize = longSize + 32 + cookieSize + box.Overhead
)

// counted returns the nonce of a prefix of 16 bytes and a number.
func counted(prefix string, n uint64) *[24]byte {
	var b [24]byte
	binary.BigEndian.PutUint64(b[copy(b[:], prefix):], n)
	return &b
}

// long returns the nonce of a prefix of 8 bytes and 16 random ones.
func long(prefix string, random []byte) *[24]byte {
	var b [24]byte
	copy(b[copy(b[:], prefix):], random)
	return &b
}

// random returns n bytes that nobody can guess; crypto/rand does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func keyPair() (public, secret *[32]byte) {
	k := Key(random(len(Key{})))
	p := k.Public()
	return (*[32]byte)(&p), (*[32]byte)(&k)
}

var (
	errServerKey = errors.New("zmtp: the server has another CURVE key than this side was told")
	errCurve     = errors.New("zmtp: not a command of CURVE, or forged")
)

func (h *handshake) curveClient() (io.ReadWriter, error) {
	keys := h.c.Curve
	server := (*[32]byte)(&keys.Server)
	public, secret := keyPair() // of this connection
	hello := append(make([]byte, 0, helloSize), 1, 0)
	hello = append(append(hello, make([]byte, 72)...), public[:]...)
	hello = binary.BigEndian.AppendUint64(hello, 1)
	hello = box.Seal(hello, make([]byte, 64), counted("CurveZMQHELLO---", 1), server, secret)
	if err := h.send(Hello, hello); err != nil {
		return nil, err
	}
	data, err := h.expect(Welcome)
	if err != nil {
		return nil, err
	}
	if len(data) != welcomeSize {
		return nil, errCurve
	}
	welcome, ok := box.Open(nil, data[longSize:], long("WELCOME-", data), server, secret)
	if !ok {
		return nil, errServerKey
	}
	theirs, cookie := [32]byte(welcome), welcome[32:]

	nonce, own := random(longSize), keys.Secret.Public()
	vouch := box.Seal(nonce, append(public[:], server[:]...), long("VOUCH---", nonce), &theirs, (*[32]byte)(&keys.Secret))
	s := newSealed(h.rw, h.c.MaxFrame, &theirs, secret, false)
	s.sent = 1 // the HELLO's
	initiate := s.seal(cookie, "CurveZMQINITIATE", append(append(own[:], vouch...), h.metadata()...))
	if err := h.send(Initiate, initiate); err != nil {
		return nil, err
	}
	if data, err = h.expect(Ready); err != nil {
		return nil, err
	}
	metadata, err := s.open(nil, "CurveZMQREADY---", data)
	if err != nil {
		return nil, err
	}
	return s, h.compatible(metadata)
}

func (h *handshake) curveServer() (io.ReadWriter, error) {
	keys := h.c.Curve
	data, err := h.expect(Hello)
	if err != nil {
		return nil, err
	}
	if len(data) != helloSize || data[0] != 1 || data[1] != 0 {
		return nil, errCurve
	}
	client, n := [32]byte(data[2+72:]), binary.BigEndian.Uint64(data[2+72+32:])
	own := (*[32]byte)(&keys.Secret)
	if _, ok := box.Open(nil, data[2+72+32+nonceSize:], counted("CurveZMQHELLO---", n), &client, own); !ok {
		return nil, h.refuse("it was told another CURVE key of this server")
	}
	public, secret := keyPair() // of this connection
	// The cookie lets a server forget a client until it is back with INITIATE. This one remembers: all that it looks for is
	// that it is the same.
	cookie, nonce := random(cookieSize), random(longSize)
	welcome := box.Seal(nonce, append(public[:], cookie...), long("WELCOME-", nonce), &client, own)
	if err := h.send(Welcome, welcome); err != nil {
		return nil, err
	}
	if data, err = h.expect(Initiate); err != nil {
		return nil, err
	}
	if len(data) < cookieSize || subtle.ConstantTimeCompare(data[:cookieSize], cookie) != 1 {
		return nil, errCurve
	}
	s := newSealed(h.rw, h.c.MaxFrame, &client, secret, true)
	s.got = n
	initiate, err := s.open(nil, "CurveZMQINITIATE", data[cookieSize:])
	if err != nil {
		return nil, err
	}
	metadata, err := h.admit(initiate, &client, secret)
	if err == nil {
		err = h.compatible(metadata)
	}
	if err != nil {
		return nil, err
	}
	return s, h.send(Ready, s.seal(nil, "CurveZMQREADY---", h.metadata()))
}

// admit looks at what is in an INITIATE: the client's key, and its word that the key of this connection is its own.
func (h *handshake) admit(initiate []byte, client, secret *[32]byte) (metadata []byte, err error) {
	if len(initiate) < 32+vouchSize {
		return nil, errCurve
	}
	key, vouch, own := Key(initiate), initiate[32:32+vouchSize], h.c.Curve.Secret.Public()
	said, ok := box.Open(nil, vouch[longSize:], long("VOUCH---", vouch[:longSize]), (*[32]byte)(&key), secret)
	if !ok || !bytes.Equal(said[:32], client[:]) || !bytes.Equal(said[32:], own[:]) {
		return nil, errCurve
	}
	if !slices.Contains(h.c.Curve.Clients, key) {
		return nil, h.refuse("its CURVE key is not among those that are let in")
	}
	return initiate[32+vouchSize:], nil
}
