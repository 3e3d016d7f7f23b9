// SPDX-License-Identifier: Apache-2.0

package grpcwire

import "github.com/meshtap/meshtap/internal/ascii"

// AppendMessage appends a text as the value of grpc-message: percent-encoded but for what is printable. As Envoy does, '~'
// is encoded too, which the specification leaves alone; every reader decodes it.
func AppendMessage(dst, text []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range text {
		if c < ' ' || c >= '~' || c == '%' {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// AppendText appends the text of a grpc-message. What is no escape stays as it is: a reader must not fail on it.
func AppendText(dst, message []byte) []byte {
	for i := 0; i < len(message); i++ {
		if c, ok := ascii.Escaped(message[i:]); ok {
			dst = append(dst, c)
			i += 2
			continue
		}
		dst = append(dst, message[i])
	}
	return dst
}
