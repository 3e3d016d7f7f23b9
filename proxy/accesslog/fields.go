// SPDX-License-Identifier: Apache-2.0

package accesslog

import "github.com/meshtap/meshtap/internal/protofields"

// Fields returns the tables of the fields that the loggers and their filters honour, for documents and for tests.
func Fields() []*protofields.Table { return []*protofields.Table{fields, serviceFields, filterFields} }
