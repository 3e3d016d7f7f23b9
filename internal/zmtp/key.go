// SPDX-License-Identifier: Apache-2.0

package zmtp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"

	"golang.org/x/crypto/curve25519"
)

// Key is a key of CURVE, public or secret.
type Key [32]byte

// z85 are the digits of ZeroMQ RFC 32.
const z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

var errKey = errors.New("a key of CURVE is 40 characters of Z85, or 64 of hexadecimal")

// ParseKey reads a key in Z85 (ZeroMQ RFC 32), as libzmq prints it, or in hexadecimal. The error does not show it.
func ParseKey(s string) (k Key, err error) {
	switch len(s) {
	case hex.EncodedLen(len(k)):
		_, err = hex.Decode(k[:], []byte(s))
	case len(k) / 4 * 5:
		err = decodeZ85(k[:], s)
	}
	if err != nil || k == (Key{}) { // whose partner anybody knows
		return Key{}, errKey
	}
	return k, nil
}

// decodeZ85 reads 4 bytes from each 5 digits.
func decodeZ85(dst []byte, s string) error {
	for ; len(s) > 0; dst, s = dst[4:], s[5:] {
		var v uint64
		for _, c := range []byte(s[:5]) {
			digit := strings.IndexByte(z85, c)
			if digit < 0 {
				return errKey
			}
			v = v*85 + uint64(digit)
		}
		if v>>32 != 0 {
			return errKey
		}
		binary.BigEndian.PutUint32(dst, uint32(v))
	}
	return nil
}

// Public returns the public key of a secret one.
func (k Key) Public() (public Key) {
	b, _ := curve25519.X25519(k[:], curve25519.Basepoint) // its error is of other points
	copy(public[:], b)
	return public
}
