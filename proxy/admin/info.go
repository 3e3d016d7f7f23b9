// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// ready prints the state, and behind it what the server waits for or serves with.
func (s *Server) ready(*request) (*answer, error) {
	state, waiting := s.views.Ready()
	var b strings.Builder
	b.WriteString(state.String() + "\n")
	for _, w := range waiting {
		if state != Live {
			b.WriteString("waiting for ")
		}
		b.WriteString(clean(w) + "\n")
	}
	if state == Live {
		return text(http.StatusOK, b.String()), nil
	}
	return text(http.StatusServiceUnavailable, b.String()), nil
}

// noHotRestart is what Envoy prints as its hot restart version where hot restart is off.
const noHotRestart = "disabled"

func (s *Server) hotRestartVersion(*request) (*answer, error) {
	return text(http.StatusOK, noHotRestart), nil
}

// serverInfoJSON is envoy.admin.v3.ServerInfo.
type serverInfoJSON struct {
	Version           string             `json:"version"`
	State             string             `json:"state"`
	UptimeEpoch       Duration           `json:"uptime_current_epoch"`
	UptimeAll         Duration           `json:"uptime_all_epochs"`
	HotRestartVersion string             `json:"hot_restart_version"`
	Options           CommandLineOptions `json:"command_line_options"`
	Node              Node               `json:"node"`
	Initializing      bool               `json:"hot_restart_initializing"`
}

func (s *Server) serverInfo(*request) (*answer, error) {
	v := s.views.ServerInfo()
	up := Duration(v.Uptime.Truncate(1e9))
	j := serverInfoJSON{Version: v.Version, State: v.State.String(), UptimeEpoch: up, UptimeAll: up,
		HotRestartVersion: noHotRestart, Options: v.Options, Node: v.Node}
	n := &j.Node
	if n.Extensions == nil {
		n.Extensions = []Extension{}
	}
	if n.ClientFeatures == nil {
		n.ClientFeatures = []string{}
	}
	if n.Listening == nil {
		n.Listening = []any{}
	}
	if n.Dynamic == nil {
		n.Dynamic = map[string]any{}
	}
	return jsonAnswer(j)
}

func (s *Server) memory(*request) (*answer, error) {
	m := metrics.ReadMemory()
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	return jsonAnswer(struct {
		Allocated   string `json:"allocated"`
		HeapSize    string `json:"heap_size"`
		Unmapped    string `json:"pageheap_unmapped"`
		Free        string `json:"pageheap_free"`
		ThreadCache string `json:"total_thread_cache"`
		Physical    string `json:"total_physical_bytes"`
	}{n(m.Allocated), n(m.HeapSize), n(m.Unmapped), n(m.Free), n(m.ThreadCache), n(m.Physical)})
}

func (s *Server) runtime(*request) (*answer, error) {
	r := *s.views.Runtime()
	if r.Layers == nil {
		r.Layers = []string{}
	}
	if r.Entries == nil {
		r.Entries = map[string]RuntimeEntry{}
	}
	return jsonAnswer(r)
}

func (s *Server) initDump(r *request) (*answer, error) {
	dumps := s.views.InitDump()
	if mask := r.query.get("mask"); mask != "" { // as in Envoy, whose only mask is "listener"
		dumps = slices.DeleteFunc(dumps, func(u Unready) bool { return !strings.HasPrefix(u.Name, mask+" ") })
	}
	return jsonAnswer(struct {
		Dumps []Unready `json:"unready_targets_dumps,omitempty"`
	}{dumps})
}

// addressJSON is envoy.config.core.v3.Address.
type addressJSON struct {
	Socket *socketAddressJSON `json:"socket_address,omitempty"`
	Pipe   *pipeJSON          `json:"pipe,omitempty"`
}

type socketAddressJSON struct {
	Address string `json:"address"`
	Port    uint16 `json:"port_value"`
}

type pipeJSON struct {
	Path string `json:"path"`
}

func addressOf(a mesh.Address) addressJSON {
	if a.Pipe != "" {
		return addressJSON{Pipe: &pipeJSON{a.Pipe}}
	}
	return addressJSON{Socket: &socketAddressJSON{a.IP.Addr().String(), a.IP.Port()}}
}

// listenerJSON is envoy.admin.v3.ListenerStatus.
type listenerJSON struct {
	Name       string        `json:"name"`
	Local      addressJSON   `json:"local_address"`
	Additional []addressJSON `json:"additional_local_addresses,omitempty"`
}

func (s *Server) listeners(r *request) (*answer, error) {
	list := s.views.Listeners()
	if r.query.get("format") == "json" {
		all := []listenerJSON{}
		for _, l := range list {
			j := listenerJSON{Name: l.Name}
			for i, a := range l.Addresses {
				if i == 0 {
					j.Local = addressOf(a)
				} else {
					j.Additional = append(j.Additional, addressOf(a))
				}
			}
			all = append(all, j)
		}
		return jsonAnswer(map[string]any{"listener_statuses": all})
	}
	return writeText(func(w *bufio.Writer) error {
		for _, l := range list {
			for _, a := range l.Addresses {
				w.WriteString(clean(l.Name) + "::" + clean(a.String()) + "\n")
			}
		}
		return nil
	}), nil
}
