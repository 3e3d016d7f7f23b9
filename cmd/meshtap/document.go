// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/json"

// document is an answer in JSON. It begins with its version, so that its readers know what they read.
type document map[string]any

const apiVersion = "meshtap/v1"

// MarshalJSON adds the version.
func (d document) MarshalJSON() ([]byte, error) {
	out := map[string]any{"apiVersion": apiVersion}
	for k, v := range d {
		out[k] = v
	}
	return json.Marshal(out)
}
