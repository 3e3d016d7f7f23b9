// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/meshtap/meshtap/internal/stats"

// The numbers of the files that access logs are written to, filesystem.*. All are moved by accesslog.
const (
	// FileWriteBuffered: a line was handed over to be written.
	FileWriteBuffered = iota
	// FileWriteCompleted: what had been handed over was written to a file.
	FileWriteCompleted
	// FileWriteFailed: a write to a file failed.
	FileWriteFailed
	// FileFlushedByTimer: it was written because it had waited long enough.
	FileFlushedByTimer
	// FileReopenFailed: a file could not be opened again.
	FileReopenFailed
	// FileWriteTotalBuffered is the bytes that wait.
	FileWriteTotalBuffered
)

var filesystemSchema = &stats.Schema{
	Name: "filesystem",
	Defs: []stats.Def{
		FileWriteBuffered:      {Name: "write_buffered"},
		FileWriteCompleted:     {Name: "write_completed"},
		FileWriteFailed:        {Name: "write_failed"},
		FileFlushedByTimer:     {Name: "flushed_by_timer"},
		FileReopenFailed:       {Name: "reopen_failed"},
		FileWriteTotalBuffered: {Name: "write_total_buffered", Kind: stats.Gauge},
	},
}

// Filesystem is the numbers of the files that access logs are written to.
type Filesystem struct{ *stats.Group }

// NewFilesystem returns the numbers of the files that access logs are written to.
func NewFilesystem(reg *stats.Registry) *Filesystem {
	return &Filesystem{reg.Group(filesystemSchema, "filesystem")}
}

// The numbers of access logs for which Envoy has no name, meshtap_accesslog_*. All are moved by accesslog.
const (
	// LogLines and LogBytes were handed to the system.
	LogLines = iota
	LogBytes
	// LogDropped: a line found no room, was too long even when cut, or met a write error.
	LogDropped
	// LogTruncated: a line was cut.
	LogTruncated
	// LogReopened: a file was opened again.
	LogReopened
)

var accessLogSchema = &stats.Schema{
	Own: true,
	Defs: []stats.Def{
		LogLines:     {Name: "meshtap_accesslog_lines_total"},
		LogBytes:     {Name: "meshtap_accesslog_bytes_total"},
		LogDropped:   {Name: "meshtap_accesslog_dropped_total"},
		LogTruncated: {Name: "meshtap_accesslog_truncated_total"},
		LogReopened:  {Name: "meshtap_accesslog_reopened_total"},
	},
}

// AccessLog is the numbers of access logs for which Envoy has no name.
type AccessLog struct{ *stats.Group }

// NewAccessLog returns the numbers of access logs for which Envoy has no name.
func NewAccessLog(reg *stats.Registry) *AccessLog {
	return &AccessLog{reg.Group(accessLogSchema, "")}
}
