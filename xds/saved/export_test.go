// SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// Decode and Encode are those of the file.
var (
	Decode = decode
	Encode = encode
)

// Sealed makes a file of a body, with the magic and the checksum that it has to have.
func Sealed(body []byte) []byte {
	var b bytes.Buffer
	b.WriteString(magic)
	b.Write(body)
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "%x\n", sum)
	return b.Bytes()
}
