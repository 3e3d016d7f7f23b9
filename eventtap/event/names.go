// SPDX-License-Identifier: Apache-2.0

package event

// Field is a field of the data of requests and connections, by its name in JSON.
type Field struct {
	// Text or Number is where the field is, by IsText. IsList says that it is the list of tries, which is neither.
	Text           Text
	Number         Number
	IsText, IsList bool
}

// FieldOf finds a field of RequestOutcome or ConnectionOutcome by its name in JSON, such as "http.route".
func FieldOf(name string) (f Field, ok bool) {
	if name == tries.name {
		return Field{IsList: true}, true
	}
	for _, list := range [][]field{requestFields, connectionFields} {
		for i := range list {
			if list[i].name != name {
				continue
			}
			if list[i].form == text {
				return Field{Text: Text(list[i].slot), IsText: true}, true
			}
			return Field{Number: Number(list[i].slot)}, true
		}
	}
	return Field{}, false
}

// Default returns what a number is where it is left out.
func Default(n Number) int64 {
	if isOptional(n) {
		return Absent
	}
	return 0
}
