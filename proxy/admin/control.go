// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"slices"
	"strings"
)

func (s *Server) resetCounters(*request) (*answer, error) {
	s.deps.Stats.ResetCounters()
	return ok(), nil
}

func (s *Server) drainListeners(r *request) (*answer, error) {
	err := s.views.DrainListeners(DrainOptions{
		InboundOnly: r.query.has("inboundonly"),
		Graceful:    r.query.has("graceful"),
		SkipExit:    r.query.has("skip_exit"),
	})
	if err != nil {
		return nil, err
	}
	return ok(), nil
}

func (s *Server) failHealthCheck(fail bool) func(*request) (*answer, error) {
	return func(*request) (*answer, error) {
		s.views.HealthCheck(fail)
		return ok(), nil
	}
}

func (s *Server) reopenLogs(*request) (*answer, error) {
	if err := s.views.ReopenLogs(); err != nil {
		return nil, err
	}
	return ok(), nil
}

const modifyUsage = `usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN
       or send the parameters as form values
use an empty value to remove a previously added override`

func (s *Server) modifyRuntime(r *request) (*answer, error) {
	if len(r.query) == 0 {
		return nil, &Error{http.StatusBadRequest, modifyUsage}
	}
	values := map[string]string{}
	for name := range r.query {
		values[name] = r.query.get(name)
	}
	if err := s.views.ModifyRuntime(values); err != nil {
		return nil, err
	}
	return ok(), nil
}

func (s *Server) quit(*request) (*answer, error) {
	s.views.Quit()
	return ok(), nil
}

// logging changes levels, all that are named or none, and prints those in force.
func (s *Server) logging(r *request) (*answer, error) {
	loggers := s.views.Loggers()
	changes, problem := readLevels(r.query, loggers)
	if problem != "" {
		return text(http.StatusBadRequest, "error: "+problem+"\n\n"+loggingUsage+activeLoggers(loggers)), nil
	}
	for _, c := range changes {
		s.views.SetLogger(c.Name, c.Level)
	}
	return text(http.StatusOK, activeLoggers(s.views.Loggers())), nil
}

var loggingUsage = `usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: ` + strings.Join(Levels[:], " ") + " \n"

func activeLoggers(loggers []Logger) string {
	var b strings.Builder
	b.WriteString("active loggers:\n")
	for _, l := range loggers {
		b.WriteString("  " + clean(l.Name) + ": " + clean(l.Level) + "\n")
	}
	b.WriteByte('\n')
	return b.String()
}

// readLevels returns what a query asks to change. Its problems are worded as Envoy's.
func readLevels(q query, loggers []Logger) (changes []Logger, problem string) {
	if len(q) > 1 {
		return nil, "invalid number of parameters"
	}
	for name, values := range q {
		value := values[0]
		switch name {
		case "level":
			for _, l := range loggers {
				if value == "" {
					break // shows the levels
				}
				changes = append(changes, Logger{l.Name, value})
			}
		case "paths":
			for pair := range strings.SplitSeq(value, ",") {
				logger, level, _ := strings.Cut(pair, ":")
				changes = append(changes, Logger{logger, level})
			}
		default:
			changes = append(changes, Logger{name, value})
		}
	}
	for i := range changes {
		c := &changes[i]
		if !slices.ContainsFunc(loggers, func(l Logger) bool { return l.Name == c.Name }) {
			return nil, "unknown logger name"
		}
		if c.Level == "warn" {
			c.Level = "warning"
		}
		if !slices.Contains(Levels[:], c.Level) {
			return nil, "unknown logger level"
		}
	}
	return changes, ""
}
