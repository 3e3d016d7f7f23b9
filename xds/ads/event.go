// SPDX-License-Identifier: Apache-2.0

package ads

// Event is what a Client tells its owner.
type Event interface{ event() }

// Connected says that a stream is open and all subscriptions were sent on it.
type Connected struct{ Target Target }

// Disconnected says that the stream ended, or could not be opened. Connected need not have come before it.
type Disconnected struct {
	Err error
	// Responded says that the stream had brought a response, so that its end is nothing unusual.
	Responded bool
}

// Response is one response of a control plane. It has to be answered by Ack or Nack.
type Response struct {
	TypeURL, Version, Nonce string
	// Delta says that the response is incremental: what is not in it is as it was, and Removed is gone.
	Delta   bool
	Removed []string
	// Resources are in the order of the response; their bytes are the owner's. Alive are those that are as they were.
	Resources []Resource
	Alive     []string
	// Absent are resources that the control plane says it cannot send.
	Absent []Absent
	// ControlPlane is how the control plane calls itself, "" where it does not.
	ControlPlane string
	// Bytes is the size of the resources together.
	Bytes int
	// Place says where a field of resource i stands, for sources that are texts; nil for others.
	Place func(i int, path string) string
}

// Resource is one serialized resource.
type Resource struct {
	TypeURL string
	Bytes   []byte
	// Name and Version are what an incremental response says of it, "" elsewhere.
	Name, Version string
	// Aliases are other names that the resource answers to, of an incremental response.
	Aliases []string
}

// Absent is a name and the reason why there is no resource of it.
type Absent struct{ Name, Reason string }

// Expired are resources whose time to live is over. They are to be removed, as if the control plane had done so.
type Expired struct {
	TypeURL string
	Names   []string
}

// Failed says that a source could not be read. What it brought last stays, and it goes on.
type Failed struct{ Err error }

func (Connected) event()    {}
func (Disconnected) event() {}
func (Response) event()     {}
func (Expired) event()      {}
func (Failed) event()       {}
