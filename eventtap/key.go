// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"

	"github.com/meshtap/meshtap/eventtap/spool"
)

// ReadKey reads the key of a spool: as it is, or in hexadecimal digits. "" has none.
func ReadKey(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the spool's key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&^0o640 != 0 {
		return nil, fmt.Errorf("the spool's key: %s has the mode %#o; a secret must have 0640 or less", path, mode)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the spool's key: %w", err)
	}
	if len(b) == spool.KeySize {
		return b, nil
	}
	key := make([]byte, spool.KeySize)
	if digits := bytes.TrimSpace(b); len(digits) == hex.EncodedLen(spool.KeySize) {
		if _, err := hex.Decode(key, digits); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("the spool's key: %s must hold %d bytes, or %d hexadecimal digits", path, spool.KeySize, hex.EncodedLen(spool.KeySize))
}
