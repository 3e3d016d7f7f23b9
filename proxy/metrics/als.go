// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/meshtap/meshtap/internal/stats"

// The numbers of entries for access log services, access_logs.grpc_access_log.*: those that there was room for and those
// that were dropped; and of the first, those that were written to a stream and those that were given up. All are moved by
// the clients of internal/als.
const (
	ServiceLogsWritten = iota
	ServiceLogsDropped
	ServiceLogsFlushed
	ServiceLogsFailed
)

var serviceLogSchema = &stats.Schema{
	Name: "access_logs.grpc_access_log",
	Defs: []stats.Def{
		ServiceLogsWritten: {Name: "logs_written"}, ServiceLogsDropped: {Name: "logs_dropped"},
		ServiceLogsFlushed: {Name: "grpc_entries_flushed"}, ServiceLogsFailed: {Name: "grpc_entries_flush_failed"},
	},
}

// ServiceLogs is the numbers of entries for access log services.
type ServiceLogs struct{ *stats.Group }

// NewServiceLogs returns the numbers of entries for access log services.
func NewServiceLogs(reg *stats.Registry) *ServiceLogs {
	return &ServiceLogs{reg.Group(serviceLogSchema, "access_logs.grpc_access_log")}
}
