// SPDX-License-Identifier: Apache-2.0

package event

const (
	// MaxSize bounds one encoded event, in bytes, in either encoding. What the tap makes stays below it by the limits of
	// its strings; what is read must.
	MaxSize = 16 << 10
	// MaxItems is the greatest number of list entries (tries, rejections) in an event.
	MaxItems = 4
	// Absent is the value of a number that may be missing and is: a point in time that was not reached.
	Absent int64 = -1
	// NoKey is the partition key of events that are about no service.
	NoKey = "-"
)

// Event is one event. Its byte slices are borrowed from whoever filled it, or from the bytes it was decoded from.
type Event struct {
	Kind Kind
	// Type is the CloudEvents type where Kind is Unknown; otherwise the kind says it.
	Type []byte
	// ID is the same on every outlet, and the key by which repeats are dropped.
	ID, Source, Subject, PartitionKey, TraceParent, BootID []byte
	// Time is in nanoseconds since 1970.
	Time int64
	// Sequence counts the events of a boot from 1, over all keys; StreamSeq those that one sink is meant to carry. 0 is
	// no number: lost events have none.
	Sequence, StreamSeq uint64
	// SampledRate is how many events this one stands for, itself included: CloudEvents' extension of that name. 0 and 1 are
	// the same, an event of which nothing was left out.
	SampledRate uint32
	// Texts and Numbers are the data; which of them belong to the kind is in the schema. An empty text and a zero number
	// are left out of both encodings, as is a number that is Absent.
	Texts   [numTexts][]byte
	Numbers [numNumbers]int64
	// Items[:NumItems] is the list that the kind has: tries or rejections.
	Items    [MaxItems]Item
	NumItems int
}

// Item is an entry of an event's list.
type Item struct {
	Texts   [numItemTexts][]byte
	Numbers [numItemNumbers]int64
}

// Reset makes e an empty event of the kind.
func (e *Event) Reset(k Kind) {
	e.Kind, e.Type = k, nil
	e.ID, e.Source, e.Subject, e.PartitionKey, e.TraceParent, e.BootID = nil, nil, nil, nil, nil, nil
	e.Time, e.Sequence, e.StreamSeq, e.SampledRate = 0, 0, 0, 0
	clear(e.Texts[:])
	clear(e.Numbers[:])
	for _, n := range optional {
		e.Numbers[n] = Absent
	}
	e.NumItems = 0
}

// AddItem returns the next entry of the list, or nil where it is full.
func (e *Event) AddItem() *Item {
	if e.NumItems == MaxItems {
		return nil
	}
	e.NumItems++
	it := &e.Items[e.NumItems-1]
	*it = Item{}
	return it
}

// Uint returns a number as the schema's unsigned type; Absent is 0.
func (e *Event) Uint(n Number) uint64 {
	if e.Numbers[n] == Absent && isOptional(n) {
		return 0
	}
	return uint64(e.Numbers[n])
}

// Failed tells whether the event is about a request or connection that failed.
func (e *Event) Failed() bool { return len(e.Texts[ErrorType]) > 0 }

func isOptional(n Number) bool { return n >= RequestEnd && n <= GRPCStatus }
