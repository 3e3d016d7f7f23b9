// SPDX-License-Identifier: Apache-2.0

// Package graph decides when configuration goes into force. It knows what depends on what (a listener on its route
// tables, a route table on its clusters, a cluster on its endpoints), holds back what is not complete, and puts together
// snapshots that never break what the one before them served.
//
// A Machine is pure: events go in through Step, actions come out, in the order in which they are to be done. It reads no
// clock, starts no goroutine and does no I/O; package xds is the shell that does all that. The same events give the same
// actions.
//
// The rules:
//
//   - What a control plane sent and what is in force are two things. An entry holds both: want and live.
//   - A cluster goes into force with its first set of endpoints, a route table when the clusters it names are there, a
//     listener when its route tables are there too. All that can go at one moment goes as one snapshot.
//   - What is replaced lets go of what it named only once the proxy has taken the replacement, and a cluster that was
//     removed stays while something in force names it. So additions come first and removals last.
//   - Only what the newest accepted configuration names is asked for. Endpoints of a cluster that is on its way out stay
//     as they were. (A control plane that is asked for a name it no longer knows may not answer at all.)
//   - No wait is for ever. When its time is over, what is there goes into force and a notice says what was missing. Once
//     started up, that time counts only while the control plane is connected (gRFC A57).
//   - A response is judged resource by resource (gRFC A46): the bad ones are named in the NACK, their last good version
//     stays, the others are taken. The answer waits for the proxy's verdict on the snapshot.
//   - Bytes that did not change give the same resource pointer as before, so nothing is rebuilt for them.
//   - Scopes (SRDS) and virtual hosts (VHDS) are asked for as a whole and used in sets. Each goes into force when what it names
//     is there, and what two of them claim (a key, a domain) passes from one to the other at one moment. A virtual host that a
//     request needs is asked for by name, and the request is told when it is in force or will not be.
//   - Endpoints do not ride in snapshots. A set that changes is handed on by itself, in time that does not depend on the
//     number of clusters. So are secrets and the configurations of filters (ECDS): what names one waits for its first version,
//     and the later ones rebuild nothing. They are asked for as long as something in force names them. A configuration that names
//     resources itself (the connection manager of a filter chain) is held back until those are in force.
package graph
