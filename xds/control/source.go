// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/xds/file"
)

// SourceStatus is what became of the mesh's file.
type SourceStatus struct {
	File string `json:"file"`
	// Loaded is when the mesh in force was read.
	Loaded time.Time `json:"loaded"`
	// Problem is why the file as it is now is not in force, "" where it is.
	Problem string `json:"problem,omitempty"`
}

// Source is a mesh.yaml that is read again whenever it changes. A file that cannot be used changes nothing.
type Source struct {
	path string
	log  *zap.Logger
	file *file.File

	// text is what is in force, owned by Run.
	text []byte

	mu     sync.Mutex
	status SourceStatus // guarded by mu
}

// Open reads a mesh.yaml, which Run then follows. The error is an *Invalid where the file cannot be used.
func Open(path string, log *zap.Logger) (*Source, *Mesh, error) {
	f, text, err := file.Open(file.Config{Path: path, MaxBytes: maxBytes}, log)
	if err != nil {
		return nil, nil, err
	}
	m, err := Parse(path, text)
	if err != nil {
		return nil, nil, err
	}
	s := &Source{path: path, log: log, file: f, text: text, status: SourceStatus{File: path, Loaded: time.Now()}}
	return s, m, nil
}

// Reload asks Run to read the file again, as after SIGHUP.
func (s *Source) Reload() { s.file.Reload() }

// Status returns what became of the file.
func (s *Source) Status() SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run calls apply with each new mesh until ctx ends, and returns nil then.
func (s *Source) Run(ctx context.Context, apply func(*Mesh)) error {
	return s.file.Run(ctx, func(text []byte, err error) {
		switch {
		case err != nil:
			s.fail(err.Error(), "")
		case bytes.Equal(text, s.text):
			s.tell("", time.Time{})
		default:
			s.update(text, apply)
		}
	})
}

// update puts a new text into force, where it can be.
func (s *Source) update(text []byte, apply func(*Mesh)) {
	m, err := Parse(s.path, text)
	var invalid *Invalid
	if errors.As(err, &invalid) {
		s.fail(invalid.Error(), invalid.Summary())
		return
	}
	s.text = text
	s.tell("", time.Now())
	s.log.Info("the mesh has changed", zap.String("file", s.path), zap.Int("services", len(m.Services)))
	apply(m)
}

// fail says once why the file is not in force.
func (s *Source) fail(problem, summary string) {
	if s.Status().Problem == problem {
		return
	}
	if summary == "" {
		summary = problem
	}
	s.tell(problem, time.Time{})
	s.log.Error("the mesh's file cannot be used; the last one stays in force", zap.String("problem", summary))
}

func (s *Source) tell(problem string, loaded time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Problem = problem
	if !loaded.IsZero() {
		s.status.Loaded = loaded
	}
}
