// SPDX-License-Identifier: Apache-2.0

package inspect

import "github.com/meshtap/meshtap/internal/sys"

// originalDst restores where a redirected connection was going. A connection that nobody redirected keeps its address.
type originalDst struct{}

// Open implements Opener.
func (originalDst) Open(fd int, info *ConnInfo) {
	local := info.DirectLocal()
	if !local.IsValid() {
		return
	}
	if to, err := sys.OriginalDst(fd, local.Addr().Is6()); err == nil && to != local {
		info.Redirect(to)
	}
}
