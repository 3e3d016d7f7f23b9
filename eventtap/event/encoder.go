// SPDX-License-Identifier: Apache-2.0

package event

// Encoder writes the events of one boot. It has what they have in common ready.
type Encoder struct {
	proto, json [NumKinds][]byte
}

// NewEncoder returns an encoder of events with this source and boot id.
func NewEncoder(source, boot []byte) *Encoder {
	x := new(Encoder)
	for k := Request; k < NumKinds; k++ {
		e := Event{Kind: k, Source: source, BootID: boot}
		x.proto[k], x.json[k] = e.appendProtoHead(nil), e.appendJSONHead(nil)
	}
	return x
}

// AppendProto does what Event.AppendProto does, with the encoder's source and boot id. The kind must be known.
func (x *Encoder) AppendProto(dst []byte, e *Event) []byte {
	return e.appendProtoTail(append(dst, x.proto[e.Kind]...))
}

// AppendJSON does what Event.AppendJSON does, with the encoder's source and boot id. The kind must be known.
func (x *Encoder) AppendJSON(dst []byte, e *Event) []byte {
	return e.appendJSONTail(append(dst, x.json[e.Kind]...))
}
