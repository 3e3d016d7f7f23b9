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
	// Resources are in the order of the response; their bytes are the owner's.
	Resources []Resource
	// Absent are resources that the control plane says it cannot send.
	Absent []Absent
	// ControlPlane is how the control plane calls itself, "" where it does not.
	ControlPlane string
	// Bytes is the size of the resources together.
	Bytes int
}

// Resource is one serialized resource.
type Resource struct {
	TypeURL string
	Bytes   []byte
}

// Absent is a name and the reason why there is no resource of it.
type Absent struct{ Name, Reason string }

func (Connected) event()    {}
func (Disconnected) event() {}
func (Response) event()     {}
