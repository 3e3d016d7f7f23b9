// SPDX-License-Identifier: Apache-2.0

package resource

// ReadFile is how data sources are read where the options do not say.
func ReadFile(name string, max int) ([]byte, error) { return readFile(name, max) }
