// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// service is a toy service and its sidecar.
type service struct {
	// Immutable.
	name, next, proxy string
	work              time.Duration
	listener          *net.TCPListener // that of the toy, which inherits it
	inbound, outbound netip.AddrPort   // those of the sidecar
	dir               string

	mu sync.Mutex
	// Guarded by mu: the switch of the toy, and what it is set to.
	commands, answers *os.File
	reader            *bufio.Reader
	fault             Fault
}

// answerTime bounds the answer of a toy to a change of its faults.
const answerTime = 2 * time.Second

// addresses are those that mesh.yaml names.
type addresses struct{ App, Inbound, Outbound string }

func (s *service) addresses() addresses {
	return addresses{s.listener.Addr().String(), s.inbound.String(), s.outbound.String()}
}

// admin is the administration socket of the sidecar.
func (s *service) admin() string { return filepath.Join(s.dir, s.name+".sock") }

// startToy starts the toy, which is binary under its hidden verb, on the listener that is passed to it.
func (s *service) startToy(n *nursery, binary string) error {
	file, err := s.listener.File()
	if err != nil {
		return err
	}
	s.listener.Close() // the toy's own from here on
	defer file.Close()
	in, commands, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	answers, out, err := os.Pipe()
	if err != nil {
		commands.Close()
		return err
	}
	defer out.Close()
	s.mu.Lock()
	s.commands, s.answers, s.reader = commands, answers, bufio.NewReader(answers)
	s.mu.Unlock()
	cmd := exec.Command(binary, "toy", "--name", s.name, "--next", s.next, "--outbound", s.outbound.String(), "--work", s.work.String())
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = s.dir, in, out, []*os.File{file}
	_, err = n.spawn("service "+s.name, cmd)
	return err
}

// startSidecar writes the bootstrap and starts the sidecar with it.
func (s *service) startSidecar(n *nursery, c Config) error {
	text, err := fill(bootstrapText, map[string]any{
		"Proxy": s.proxy, "Service": s.name, "Admin": s.admin(), "Control": c.Control,
		"BusURL": c.BusURL, "Stream": c.Stream, "TokenFile": c.TokenFile, "Sinks": c.Sinks,
	})
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, s.name+".yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	// Short drains: at the end of the demo nobody is left to be polite to.
	cmd := exec.Command(c.Meshtap, "serve", "-c", path, "--drain-time-s", "1", "--drain-quiet-msec", "20")
	cmd.Dir = s.dir
	_, err = n.spawn("sidecar "+s.proxy, cmd)
	return err
}

// setFault puts a fault into force: when it returns, the toy has it.
func (s *service) setFault(f Fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commands == nil {
		return fmt.Errorf("%s does not run", s.name)
	}
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(answerTime)
	err = errors.Join(s.commands.SetWriteDeadline(deadline), s.answers.SetReadDeadline(deadline))
	if err == nil {
		_, err = s.commands.Write(append(line, '\n'))
	}
	answer := ""
	if err == nil {
		answer, err = s.reader.ReadString('\n')
	}
	if err == nil && answer != "ok\n" {
		err = errors.New(strings.TrimSpace(answer))
	}
	if err != nil {
		return fmt.Errorf("%s does not take the fault: %w", s.name, err)
	}
	s.fault = f
	return nil
}

func (s *service) currentFault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// close closes what the parent holds of the service.
func (s *service) close() {
	s.listener.Close() // a second time, where the toy was started
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commands != nil {
		s.commands.Close()
		s.answers.Close()
		s.commands = nil
	}
}
