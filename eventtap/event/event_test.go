// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/meshtap/meshtap/api/meshtap/event/v1"
)

var generated = [NumKinds]proto.Message{
	Request:    (*eventv1.RequestOutcome)(nil),
	Connection: (*eventv1.ConnectionOutcome)(nil),
	Circuit:    (*eventv1.CircuitTransition)(nil),
	Ejection:   (*eventv1.Ejection)(nil),
	Health:     (*eventv1.HealthChange)(nil),
	Config:     (*eventv1.ConfigUpdate)(nil),
	Lifecycle:  (*eventv1.Lifecycle)(nil),
	Lost:       (*eventv1.Lost)(nil),
	Attempt:    (*eventv1.Attempt)(nil),

	Certificate: (*eventv1.CertificateChange)(nil),
}

// TestSchema holds the tables against the .proto file: same fields, numbers, types and JSON names.
func TestSchema(t *testing.T) {
	t.Parallel()
	for k := Request; k < NumKinds; k++ {
		m := &messages[k]
		d := generated[k].ProtoReflect().Descriptor()
		if want := "type.googleapis.com/" + string(d.FullName()); m.any != want {
			t.Errorf("%s: type URL %s, want %s", k, m.any, want)
		}
		fields := m.fields
		if m.list != nil {
			compareFields(t, m.list.fields, d.Fields().ByNumber(protoreflect.FieldNumber(m.list.num)).Message())
			fields = append(append([]field{}, fields...), m.list.field)
		}
		compareFields(t, fields, d)
	}
}

func compareFields(t *testing.T, have []field, want protoreflect.MessageDescriptor) {
	t.Helper()
	byNum := map[uint32]field{}
	for _, f := range have {
		if _, twice := byNum[f.num]; twice {
			t.Errorf("%s: field %d is there twice", want.Name(), f.num)
		}
		byNum[f.num] = f
	}
	for i := range want.Fields().Len() {
		w := want.Fields().Get(i)
		f, ok := byNum[uint32(w.Number())]
		delete(byNum, uint32(w.Number()))
		if !ok {
			t.Errorf("%s.%s is not in the table", want.Name(), w.Name())
			continue
		}
		if f.name != w.JSONName() {
			t.Errorf("%s.%s: JSON name %s, want %s", want.Name(), w.Name(), f.name, w.JSONName())
		}
		if got := formOf(w); f.form != got {
			t.Errorf("%s.%s: form %d, want %d", want.Name(), w.Name(), f.form, got)
		}
	}
	for num := range byNum {
		t.Errorf("%s has no field %d", want.Name(), num)
	}
}

func formOf(d protoreflect.FieldDescriptor) form {
	switch {
	case d.Kind() == protoreflect.BoolKind:
		return flag
	case d.HasPresence() && d.Kind() == protoreflect.Uint64Kind:
		return point
	case d.Kind() == protoreflect.Uint64Kind || d.Kind() == protoreflect.Uint32Kind:
		return unsigned
	}
	return text
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for k := Request; k < NumKinds; k++ {
		if got := ParseKind(k.String()); got != k {
			t.Errorf("ParseKind(%q) = %v", k.String(), got)
		}
		if got := kindOf([]byte(k.Type())); got != k {
			t.Errorf("kindOf(%q) = %v", k.Type(), got)
		}
		if !strings.HasPrefix(k.Type(), "io.meshtap.") || !strings.HasSuffix(k.Type(), ".v1") {
			t.Errorf("type %q", k.Type())
		}
	}
	if ParseKind("unknown") != Unknown || ParseKind("") != Unknown {
		t.Error("ParseKind must not know what is no kind")
	}
}

// random fills an event of the kind: each field with a chance of three in four, with values of all lengths.
func random(r *rand.Rand, k Kind) *Event {
	e := new(Event)
	e.Reset(k)
	e.ID = fmt.Appendf(nil, "%x-%d", r.Uint64(), r.IntN(1000))
	e.Source = []byte("/meshtap/c/-/-/p")
	e.BootID = fmt.Appendf(nil, "%x", r.Uint64())
	e.Time = r.Int64N(4e18)
	if r.IntN(4) > 0 {
		e.Sequence, e.StreamSeq, e.SampledRate = r.Uint64(), r.Uint64()>>r.IntN(64), rate(uint64(r.Uint32()>>(1+r.IntN(30))))
		e.Subject, e.PartitionKey = AppendAttribute(nil, randomText(r)), AppendAttribute(nil, randomText(r))
		e.TraceParent = []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	}
	m := &messages[k]
	fill(r, m.fields, e.Texts[:], e.Numbers[:])
	if m.list != nil {
		for range r.IntN(MaxItems + 1) {
			it := e.AddItem()
			fill(r, m.list.fields, it.Texts[:], it.Numbers[:])
		}
	}
	return e
}

func fill(r *rand.Rand, fields []field, texts [][]byte, numbers []int64) {
	for _, f := range fields {
		if r.IntN(4) == 0 {
			continue
		}
		switch f.form {
		case text:
			texts[f.slot] = randomText(r)
		case flag:
			numbers[f.slot] = r.Int64N(2)
		default:
			numbers[f.slot] = int64(r.Uint32() >> r.IntN(32))
		}
	}
}

var alphabet = []rune("abcXYZ019 /.:-_|\"\\<>&\n\x1b\x7fé世\u202e\u2028\u0085😀")

func randomText(r *rand.Rand) []byte {
	var b []byte
	for range 1 + r.IntN(24) {
		b = append(b, string(alphabet[r.IntN(len(alphabet))])...)
	}
	return b
}

// equal compares what both encodings carry.
func equal(a, b *Event) error {
	for _, c := range []struct {
		what string
		a, b any
	}{
		{"kind", a.Kind, b.Kind},
		{"id", string(a.ID), string(b.ID)},
		{"source", string(a.Source), string(b.Source)},
		{"subject", string(a.Subject), string(b.Subject)},
		{"partitionkey", string(a.PartitionKey), string(b.PartitionKey)},
		{"traceparent", string(a.TraceParent), string(b.TraceParent)},
		{"bootid", string(a.BootID), string(b.BootID)},
		{"time", a.Time, b.Time},
		{"sequence", a.Sequence, b.Sequence},
		{"streamseq", a.StreamSeq, b.StreamSeq},
		{"sampledrate", a.SampledRate, b.SampledRate},
		{"numbers", a.Numbers, b.Numbers},
		{"texts", fmt.Sprintf("%q", a.Texts), fmt.Sprintf("%q", b.Texts)},
		{"items", fmt.Sprint(a.Items[:a.NumItems]), fmt.Sprint(b.Items[:b.NumItems])},
	} {
		if c.a != c.b {
			return fmt.Errorf("%s: %v and %v", c.what, c.a, c.b)
		}
	}
	return nil
}
