// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/rabbitmq"
)

// TestRabbitMQCluster has a cluster of real nodes lose the one that leads a quorum queue, over and over (F84): it is killed,
// or stopped. The sink, which knows all three, goes on with the others.
func TestRabbitMQCluster(t *testing.T) {
	if long(1, 0) == 0 {
		t.Skip("it runs with SOAK=1: a node takes seconds to start")
	}
	loseLeaders(t, rabbitCluster(t), 10)
}

func rabbitCluster(t *testing.T) *cluster {
	const each = 3 // ports of a node beside that of epmd
	p := freePorts(t, 1+3*each)
	// One epmd for all, which outlives every node.
	epmd := p[3*each]
	start(t, &server{addr: "127.0.0.1:" + epmd, ready: listens, args: []string{"epmd", "-address", "127.0.0.1", "-port", epmd}})
	conf := "cluster_formation.peer_discovery_backend = classic_config\ncluster_partition_handling = pause_minority\n"
	for n := range 3 {
		conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", n+1, rabbitNode(p[n*each]))
	}
	var nodes []*rabbit
	c := &cluster{}
	for n := range 3 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".erlang.cookie"), []byte("cluster"), 0o400); err != nil {
			t.Fatal(err)
		}
		ports := p[n*each:]
		r := startRabbitOn(t, []string{ports[0], ports[1], epmd, ports[2]}, dir, conf)
		nodes, c.nodes = append(nodes, r), append(c.nodes, r.server)
	}
	c.asked = func(queue string) (int, error) { return leaderOfQueue(t, nodes, queue) }
	c.broker = &broker{
		sink: func(t *testing.T, name string) eventtap.Sink {
			cfg := nodes[0].config(t, name)
			for _, r := range nodes[1:] {
				cfg.Servers = append(cfg.Servers, rabbitmq.Server{Address: r.addr})
			}
			cfg.Structured, cfg.AckTimeout = true, 5*time.Second
			return rabbitmq.New(cfg, deps(t))
		},
		events: func(t *testing.T, name string) [][]byte { return events(t, nodes[c.leader(t, name)].take(t, name)) },
	}
	return c
}

// leaderOfQueue asks which node leads a quorum queue that all of them follow.
func leaderOfQueue(t *testing.T, nodes []*rabbit, queue string) (int, error) {
	out, err := nodes[0].tool(t, "rabbitmq-queues", "quorum_status", "--silent", "--formatter", "json", queue)
	if err != nil {
		return 0, err
	}
	var members []struct {
		Node  string `json:"Node Name"`
		State string `json:"Raft State"`
	}
	if err := json.Unmarshal(out, &members); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	leader, follow := -1, 0
	for _, m := range members {
		for n, r := range nodes {
			if m.Node == r.node() && m.State == "leader" {
				leader = n
			}
		}
		if m.State == "follower" {
			follow++
		}
	}
	if leader < 0 || follow != len(nodes)-1 {
		return 0, fmt.Errorf("one is to lead and the others to follow: %s", strings.TrimSpace(string(out)))
	}
	return leader, nil
}
