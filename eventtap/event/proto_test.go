// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	cloudeventsv1 "github.com/meshtap/meshtap/api/io/cloudevents/v1"
)

// TestProtoAgainstGenerated writes events by hand and reads them with the generated types, and the other way round.
func TestProtoAgainstGenerated(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		e := random(r, Request+Kind(i)%(NumKinds-Request))
		b := e.AppendProto(nil)
		if x := NewEncoder(e.Source, e.BootID); !bytes.Equal(b, x.AppendProto(nil, e)) || !bytes.Equal(e.AppendJSON(nil), x.AppendJSON(nil, e)) {
			t.Fatal("the encoder writes something else")
		}
		var ce cloudeventsv1.CloudEvent
		if err := proto.Unmarshal(b, &ce); err != nil {
			t.Fatalf("%s: %v", e.Kind, err)
		}
		if err := compare(e, &ce); err != nil {
			t.Fatalf("%s: %v\n%v", e.Kind, err, &ce)
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&ce)
		if err != nil {
			t.Fatal(err)
		}
		var back Event
		if err := back.DecodeProto(again); err != nil {
			t.Fatalf("%s: %v\n%v", e.Kind, err, &ce)
		}
		if err := equal(e, &back); err != nil {
			t.Fatalf("%s: %v", e.Kind, err)
		}
	}
}

// compare holds the event against what the generated types read, field by field.
func compare(e *Event, ce *cloudeventsv1.CloudEvent) error {
	attributes := map[string]string{}
	for k, v := range ce.Attributes {
		attributes[k] = v.GetCeString()
	}
	if n := ce.Attributes["sampledrate"].GetCeInteger(); uint32(n) != e.SampledRate {
		return fmt.Errorf("a sampling rate of %d, want %d", n, e.SampledRate)
	}
	seq := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprintf("%020d", n)
	}
	for _, c := range [][2]string{
		{ce.Id, string(e.ID)},
		{ce.Source, string(e.Source)},
		{ce.SpecVersion, "1.0"},
		{ce.Type, e.Kind.Type()},
		{attributes["subject"], string(e.Subject)},
		{attributes["partitionkey"], string(e.PartitionKey)},
		{attributes["bootid"], string(e.BootID)},
		{attributes["traceparent"], string(e.TraceParent)},
		{attributes["sequence"], seq(e.Sequence)},
		{attributes["streamseq"], seq(e.StreamSeq)},
		{ce.Attributes["dataschema"].GetCeUri(), messages[e.Kind].schema},
		{fmt.Sprint(ce.Attributes["time"].GetCeTimestamp().AsTime().UnixNano()), fmt.Sprint(e.Time)},
	} {
		if c[0] != c[1] {
			return fmt.Errorf("%q, want %q", c[0], c[1])
		}
	}
	data, err := ce.GetProtoData().UnmarshalNew()
	if err != nil {
		return err
	}
	m := &messages[e.Kind]
	if err := compareData(data.ProtoReflect(), m.fields, e.Texts[:], e.Numbers[:]); err != nil || m.list == nil {
		return err
	}
	d := data.ProtoReflect()
	l := d.Get(d.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(m.list.num))).List()
	if l.Len() != e.NumItems {
		return fmt.Errorf("%d entries, want %d", l.Len(), e.NumItems)
	}
	for i := range l.Len() {
		if err := compareData(l.Get(i).Message(), m.list.fields, e.Items[i].Texts[:], e.Items[i].Numbers[:]); err != nil {
			return err
		}
	}
	return nil
}

func compareData(m protoreflect.Message, fields []field, texts [][]byte, numbers []int64) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("unknown fields %x", m.GetUnknown())
	}
	for _, f := range fields {
		d := m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(f.num))
		var got, want any
		switch f.form {
		case text:
			got, want = m.Get(d).String(), string(texts[f.slot])
		case flag:
			got, want = m.Get(d).Bool(), numbers[f.slot] != 0
		case point:
			got, want = int64(m.Get(d).Uint()), numbers[f.slot]
			if !m.Has(d) {
				got = Absent
			}
		case unsigned:
			got, want = m.Get(d).Uint(), uint64(numbers[f.slot])
		}
		if got != want {
			return fmt.Errorf("%s: %v, want %v", f.name, got, want)
		}
	}
	return nil
}

func TestAppendStreamSeq(t *testing.T) {
	t.Parallel()
	e := random(rand.New(rand.NewPCG(3, 4)), Request)
	e.StreamSeq = 0
	b := AppendStreamSeq(e.AppendProto(nil), 1<<40)
	e.StreamSeq = 1 << 40
	var got Event
	if err := got.DecodeProto(b); err != nil {
		t.Fatal(err)
	}
	if err := equal(e, &got); err != nil {
		t.Fatal(err)
	}
	if n := len(AppendStreamSeq(nil, 1)); n != StreamSeqSize {
		t.Errorf("StreamSeqSize is %d, must be %d", StreamSeqSize, n)
	}
	batch := append(AppendProtoBatchHead(nil, len(b)), b...)
	batch = append(AppendProtoBatchHead(batch, len(b)), b...)
	var ces cloudeventsv1.CloudEventBatch
	if err := proto.Unmarshal(batch, &ces); err != nil || len(ces.Events) != 2 {
		t.Fatalf("%d events, %v", len(ces.Events), err)
	}
	if err := compare(e, ces.Events[1]); err != nil {
		t.Fatal(err)
	}
}

// TestNestedLength covers the lengths around which a nested message's length takes one more byte.
func TestNestedLength(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 126, 127, 128, 129, 16382, 16383, 16384, 16385, 70000} {
		b, at := openAt([]byte("head"))
		b = append(b, bytes.Repeat([]byte{'x'}, n)...)
		b = closeAt(b, at)
		r := reader{b: b[4:]}
		if got := r.varint(); int(got) != n || !bytes.Equal(r.b, bytes.Repeat([]byte{'x'}, n)) {
			t.Errorf("length %d reads as %d with %d bytes behind it", n, got, len(r.b))
		}
		if want := 4 + varintLen(uint64(n)) + n; len(b) != want {
			t.Errorf("length %d takes %d bytes, want %d", n, len(b), want)
		}
	}
}

func TestDecodeProtoRefuses(t *testing.T) {
	t.Parallel()
	good := func() *cloudeventsv1.CloudEvent {
		return &cloudeventsv1.CloudEvent{Id: "1", Source: "/s", SpecVersion: "1.0", Type: "io.meshtap.lost.v1"}
	}
	text := func(s string) *cloudeventsv1.CloudEvent_CloudEventAttributeValue {
		return &cloudeventsv1.CloudEvent_CloudEventAttributeValue{
			Attr: &cloudeventsv1.CloudEvent_CloudEventAttributeValue_CeString{CeString: s},
		}
	}
	set := func(name, value string) func(*cloudeventsv1.CloudEvent) {
		return func(ce *cloudeventsv1.CloudEvent) {
			ce.Attributes = map[string]*cloudeventsv1.CloudEvent_CloudEventAttributeValue{name: text(value)}
		}
	}
	for name, c := range map[string]struct {
		change func(*cloudeventsv1.CloudEvent)
		ok     bool
	}{
		"nothing changed":        {func(*cloudeventsv1.CloudEvent) {}, true},
		"no id":                  {func(ce *cloudeventsv1.CloudEvent) { ce.Id = "" }, false},
		"no source":              {func(ce *cloudeventsv1.CloudEvent) { ce.Source = "" }, false},
		"no type":                {func(ce *cloudeventsv1.CloudEvent) { ce.Type = "" }, false},
		"another specversion":    {func(ce *cloudeventsv1.CloudEvent) { ce.SpecVersion = "0.3" }, false},
		"a type of the future":   {func(ce *cloudeventsv1.CloudEvent) { ce.Type = "io.meshtap.outcome.v2" }, true},
		"an unknown attribute":   {set("color", "red"), true},
		"the largest sequence":   {set("sequence", "18446744073709551615"), true},
		"a sequence too large":   {set("sequence", "18446744073709551616"), false},
		"a sequence with a sign": {set("sequence", "-1"), false},
		"too big":                {set("color", string(make([]byte, MaxSize))), false},
	} {
		ce := good()
		c.change(ce)
		b, err := proto.Marshal(ce)
		if err != nil {
			t.Fatal(err)
		}
		if err := new(Event).DecodeProto(b); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeProto(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for k := Request; k < NumKinds; k++ {
		f.Add(random(r, k).AppendProto(nil))
	}
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Event
		if e.DecodeProto(b) != nil {
			return
		}
		if err := again.DecodeProto(e.AppendProto(nil)); err != nil {
			t.Fatalf("accepted, and refused when written again: %v", err)
		}
		if err := equal(&e, &again); err != nil {
			t.Fatal(err)
		}
		// What the hand-written reader accepts as data, the generated one reads as well.
		var ce cloudeventsv1.CloudEvent
		if e.Kind != Unknown && proto.Unmarshal(e.AppendProto(nil), &ce) != nil {
			t.Fatal("the generated type refuses it")
		}
	})
}
