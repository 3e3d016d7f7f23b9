// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/protofields"
)

// controlCharacters is said of text that goes into a head and would end a line there.
const controlCharacters = protofields.ControlCharacters

// validate applies the rules that the proto files carry.
func (s *scope) validate(p *at, m proto.Message) {
	s.d.fields.Check(m, func(path, msg string) bool {
		s.fail(p.join(path), msg)
		return !s.full()
	})
}
