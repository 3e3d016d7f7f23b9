// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"unicode/utf8"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
)

// The limits of a notice's texts, in bytes.
const (
	maxName    = 160
	maxReason  = 256
	maxVersion = 64
)

// maxNotice is the size of the largest notice in its ring, in bytes.
const maxNotice = 8 << 10

// kinds maps notices to events. A test holds that none is left out.
var kinds = [mesh.NumNoticeKinds]event.Kind{
	mesh.NoticeCircuit:        event.Circuit,
	mesh.NoticeEjection:       event.Ejection,
	mesh.NoticeHealth:         event.Health,
	mesh.NoticeConfigAccepted: event.Config,
	mesh.NoticeConfigRejected: event.Config,
	mesh.NoticeStart:          event.Lifecycle,
	mesh.NoticeDrain:          event.Lifecycle,
	mesh.NoticeStop:           event.Lifecycle,
	mesh.NoticeConfigTimeout:  event.Config,
	mesh.NoticeDrained:        event.Lifecycle,

	mesh.NoticeCertificateRotated:  event.Certificate,
	mesh.NoticeCertificateExpiring: event.Certificate,
}

// results are what an event says of a notice about configuration, and about certificates.
var results = [mesh.NumNoticeKinds]string{
	mesh.NoticeConfigAccepted: "accepted", mesh.NoticeConfigRejected: "rejected", mesh.NoticeConfigTimeout: "timeout",
	mesh.NoticeCertificateRotated: "rotated", mesh.NoticeCertificateExpiring: "expiring",
}

// phases are what an event says of a notice about the proxy's life.
var phases = [mesh.NumNoticeKinds]string{mesh.NoticeStart: "start", mesh.NoticeDrain: "drain", mesh.NoticeStop: "stop",
	mesh.NoticeDrained: "drained"}

// noticeEvent makes an event of a notice, with everything but its identity. Notices are rare, so it allocates.
func noticeEvent(n *mesh.Notice) *event.Event {
	e := new(event.Event)
	e.Reset(kinds[n.Kind])
	e.Time = n.Time
	e.Texts[event.Cluster] = cut(n.Cluster, maxName)
	e.Subject, e.PartitionKey = event.AppendAttribute(nil, e.Texts[event.Cluster]), noKey
	if len(e.Subject) > 0 {
		e.PartitionKey = e.Subject
	}
	if n.Host.IP.IsValid() || n.Host.Pipe != "" {
		e.Texts[event.Host] = cut(n.Host.String(), maxName)
	}
	switch {
	case n.Circuit != nil:
		fillCircuit(e, n.Circuit)
	case n.Ejection != nil:
		fillEjection(e, n.Ejection)
	case n.Health != nil:
		fillHealth(e, n.Health)
	case n.Config != nil:
		fillConfig(e, n.Kind, n.Config)
	case n.Certificate != nil:
		fillCertificate(e, n.Kind, n.Certificate)
	}
	if e.Kind == event.Lifecycle {
		fillLifecycle(e, n.Kind, n.Lifecycle)
	}
	return e
}

func fillCircuit(e *event.Event, c *mesh.CircuitNotice) {
	e.Texts[event.From], e.Texts[event.To] = []byte(c.From.String()), []byte(c.To.String())
	e.Texts[event.Reason] = cut(c.Reason, maxReason)
	e.Numbers[event.Requests] = int64(c.Requests)
	e.Numbers[event.Failures], e.Numbers[event.Slow] = int64(c.Failures), int64(c.Slow)
}

func fillEjection(e *event.Event, c *mesh.EjectionNotice) {
	e.Numbers[event.Ejected], e.Numbers[event.Enforced] = bit(c.Ejected), bit(c.Enforced)
	e.Texts[event.Reason] = cut(c.Reason, maxReason)
	e.Numbers[event.Times], e.Numbers[event.EjectedFor] = int64(c.Times), max(c.For, 0)
}

var healths = [...]string{
	mesh.HealthUnknown: "unknown", mesh.HealthHealthy: "healthy", mesh.HealthUnhealthy: "unhealthy",
	mesh.HealthDraining: "draining", mesh.HealthTimeout: "timeout", mesh.HealthDegraded: "degraded",
}

func fillHealth(e *event.Event, c *mesh.HealthNotice) {
	e.Texts[event.From], e.Texts[event.To] = []byte(healths[c.From]), []byte(healths[c.To])
	e.Texts[event.Origin], e.Texts[event.Reason] = cut(c.Source, maxReason), cut(c.Reason, maxReason)
}

func fillConfig(e *event.Event, kind mesh.NoticeKind, c *mesh.ConfigNotice) {
	e.Texts[event.Result], e.Texts[event.Resource] = []byte(results[kind]), []byte(c.Kind.String())
	e.Texts[event.Version] = cut(c.Version, maxVersion)
	e.Numbers[event.Accepted], e.Numbers[event.Rejected] = int64(c.Accepted), int64(c.Rejected)
	for _, r := range c.Errors {
		it := e.AddItem()
		if it == nil {
			break
		}
		it.Texts[event.ItemKind], it.Texts[event.ItemName] = []byte(r.Kind.String()), cut(r.Name, maxName)
		it.Texts[event.ItemReason] = cut(r.Reason, maxReason)
	}
}

func fillCertificate(e *event.Event, kind mesh.NoticeKind, c *mesh.CertificateNotice) {
	e.Texts[event.Result], e.Texts[event.Resource] = []byte(results[kind]), []byte(c.Type.String())
	e.Texts[event.Secret], e.Texts[event.Holder] = cut(c.Secret, maxName), cut(c.Resource, maxName)
	e.Texts[event.CertificateSubject] = cut(c.Subject, maxReason)
	e.Texts[event.Serial], e.Texts[event.OldSerial] = cut(c.Serial, maxVersion), cut(c.OldSerial, maxVersion)
	e.Numbers[event.NotAfter] = max(c.NotAfter, 0)
}

func fillLifecycle(e *event.Event, kind mesh.NoticeKind, c *mesh.LifecycleNotice) {
	e.Texts[event.Phase] = []byte(phases[kind])
	if c == nil {
		return
	}
	e.Texts[event.Version], e.Texts[event.Reason] = cut(c.Version, maxVersion), cut(c.Reason, maxReason)
	e.Numbers[event.Connections], e.Numbers[event.Requests] = max(c.Connections, 0), max(c.Requests, 0)
}

// cut returns a text of at most max bytes, as UTF-8.
func cut(s string, max int) []byte {
	if len(s) > max {
		for max > 0 && !utf8.RuneStart(s[max]) {
			max--
		}
		s = s[:max]
	}
	return event.AppendValid(nil, []byte(s))
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
