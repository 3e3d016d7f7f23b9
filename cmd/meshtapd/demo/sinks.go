// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"encoding/json"
	"errors"
	"os"

	goyaml "github.com/goccy/go-yaml"
)

// ReadSinks reads a file with a list of meshtap.tap.v1.Sink in YAML, for Config.Sinks. What is in them is for the sidecars to
// judge, which end with an error where they cannot use it.
func ReadSinks(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []map[string]any
	if err := goyaml.Unmarshal(b, &list); err != nil || len(list) == 0 {
		return nil, errors.Join(errors.New("it must hold a list of sinks"), err)
	}
	out := make([]string, len(list))
	for i, s := range list {
		line, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		out[i] = string(line)
	}
	return out, nil
}
