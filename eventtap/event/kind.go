// SPDX-License-Identifier: Apache-2.0

package event

// Kind is what an event tells of.
type Kind uint8

// The kinds. Unknown is an event of a type that this version does not know: its attributes can be read, its data not.
const (
	Unknown Kind = iota
	Request
	Connection
	Circuit
	Ejection
	Health
	Config
	Lifecycle
	Lost
	Attempt
	Certificate
	NumKinds
)

// String returns the kind's short name, as in subjects and filters.
func (k Kind) String() string { return messages[k].short }

// Type returns the kind's CloudEvents type, "" for Unknown.
func (k Kind) Type() string { return messages[k].typ }

// ParseKind returns the kind with this short name, or Unknown.
func ParseKind(short string) Kind {
	for k := Request; k < NumKinds; k++ {
		if messages[k].short == short {
			return k
		}
	}
	return Unknown
}

// kindOf returns the kind with this CloudEvents type, or Unknown.
func kindOf(typ []byte) Kind {
	for k := Request; k < NumKinds; k++ {
		if messages[k].typ == string(typ) {
			return k
		}
	}
	return Unknown
}
