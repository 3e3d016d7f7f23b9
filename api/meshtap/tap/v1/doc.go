// SPDX-License-Identifier: Apache-2.0

// Package tapv1 is the generated form of the event tap's configuration and of its sinks'. Only the Parse functions of
// eventtap and eventtap/sink read it.
package tapv1
