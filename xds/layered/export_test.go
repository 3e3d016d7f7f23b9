// SPDX-License-Identifier: Apache-2.0

package layered

// Told has f called after each change.
func (r *Runtime) Told(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = f
}
