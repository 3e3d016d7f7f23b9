// SPDX-License-Identifier: Apache-2.0

package mesh

// Notice is something that happened to the mesh itself and not to one request: a circuit opened, a host was ejected, a
// configuration was refused. Notices are rare, so they own their strings.
type Notice struct {
	Kind NoticeKind
	// Time is in nanoseconds since 1970.
	Time int64
	// Cluster and Host say what it is about; Host is the zero Address where it is about the cluster.
	Cluster string
	Host    Address
	// Exactly one of these is set, by Kind.
	Circuit   *CircuitNotice
	Ejection  *EjectionNotice
	Health    *HealthNotice
	Config    *ConfigNotice
	Lifecycle *LifecycleNotice
	// Certificate is of NoticeCertificateRotated and NoticeCertificateExpiring.
	Certificate *CertificateNotice
}

// NoticeKind is what a Notice tells of.
type NoticeKind uint8

// The notice kinds.
const (
	NoticeCircuit NoticeKind = iota
	NoticeEjection
	NoticeHealth
	NoticeConfigAccepted
	NoticeConfigRejected
	NoticeStart
	NoticeDrain
	NoticeStop
	// NoticeConfigTimeout: a wait for configuration ran out, and what was there went into force without it. Config's
	// Errors say what was missing.
	NoticeConfigTimeout
	// NoticeDrained: the drain is over; Lifecycle's Connections are those that were left.
	NoticeDrained
	// NoticeCertificateRotated: a certificate, or a bundle of authorities, that came as a secret was replaced by another.
	NoticeCertificateRotated
	// NoticeCertificateExpiring: the time of a certificate in force is nearly over, or over. It is told once.
	NoticeCertificateExpiring
	// NumNoticeKinds is the number of kinds. It stays the last, so that a table of all kinds can be held against it.
	NumNoticeKinds
)

// CircuitState is the state of a circuit breaker.
type CircuitState uint8

// The circuit states. NoCircuit is a cluster without a breaker.
const (
	NoCircuit CircuitState = iota
	CircuitClosed
	CircuitIsOpen
	CircuitHalfOpen
)

// String returns the state's name in events and tables.
func (s CircuitState) String() string { return [...]string{"", "closed", "open", "half_open"}[s] }

// CircuitNotice is a transition of a circuit breaker, with the window that caused it.
type CircuitNotice struct {
	From, To CircuitState
	// Reason is one of "consecutive_failures", "error_rate", "slow_rate", "probe_failed", "probes_succeeded",
	// "open_expired".
	Reason string
	// Requests, Failures and Slow are what the window held.
	Requests, Failures, Slow uint32
}

// EjectionNotice tells that outlier detection ejected a host or let it back.
type EjectionNotice struct {
	Ejected bool
	// Reason is one of "consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure", "expired",
	// "active_check".
	Reason string
	// Times counts the ejections of this host; For is how long this one lasts at least, in nanoseconds.
	Times uint32
	For   int64
	// Enforced is false where the configuration detects without acting.
	Enforced bool
}

// HealthNotice tells that an active check, or discovery, changed a host's health.
type HealthNotice struct {
	From, To HealthStatus
	// Source is "active_check" or "discovery". Reason says more, such as "connect: connection refused".
	Source, Reason string
}

// ConfigNotice tells what became of a response of a control plane, or of a file.
type ConfigNotice struct {
	Kind    ResourceKind
	Version string
	// Accepted and Rejected count resources; Errors names the rejected ones and why.
	Accepted, Rejected int
	Errors             []Rejection
}

// CertificateNotice tells of a certificate, or of the first one of a bundle of authorities. It holds nothing private.
type CertificateNotice struct {
	// Secret is the secret's name, "" where the certificate stands in Resource itself, such as `listener "web"`.
	Secret, Resource string
	Type             SecretType
	// Subject is its distinguished name, Serial its number in hexadecimal digits.
	Subject, Serial string
	// NotAfter is the end of its time, in nanoseconds since 1970.
	NotAfter int64
	// OldSerial is that of the certificate it replaces, where it does.
	OldSerial string
}

// LifecycleNotice tells of start, drain and stop.
type LifecycleNotice struct {
	Version, Reason string
	// Connections and Requests are those in flight.
	Connections, Requests int64
}
