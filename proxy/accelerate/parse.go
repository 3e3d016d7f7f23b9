// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"fmt"
	"strings"
)

// Parse reads the value of --accelerate: "sockmap" or "sockmap:/path/of/a/cgroup2". An empty value turns nothing on.
func Parse(value string) (cfg Config, on bool, err error) {
	if value == "" {
		return cfg, false, nil
	}
	kind, path, named := strings.Cut(value, ":")
	if kind != "sockmap" {
		return cfg, false, fmt.Errorf("there is no --accelerate %q", value)
	}
	if named && !strings.HasPrefix(path, "/") {
		return cfg, false, fmt.Errorf("--accelerate %q: %q is not the absolute path of a cgroup2 folder", value, path)
	}
	return Config{Cgroup: path}, true, nil
}
